//! The one authorization point: every route names an [`Entitlement`], and nothing is served before it was checked.

use crate::{caller::Caller, caller::Listener, reply::ApiError};

/// What a route lets its caller do. Names follow Incus's entitlements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entitlement {
    /// Anyone who reached the socket.
    Public,
    ViewServer,
    EditServer,
    /// Daemon internals: shutdown, readiness.
    ManageServer,
    ViewResources,
    ViewEvents,
    ViewOperations,
    ManageOperations,
    ViewInstances,
    CreateInstances,
    EditInstances,
    DeleteInstances,
    UpdateInstanceState,
    ExecInstances,
    AccessConsole,
    AccessFiles,
    ViewImages,
    CreateImages,
    EditImages,
    ViewProfiles,
    EditProfiles,
    ViewNetworks,
    EditNetworks,
    ViewStoragePools,
    EditStoragePools,
    ViewProjects,
    EditProjects,
    ViewWarnings,
}

/// May `caller` do this in `project`?
pub fn authorize(caller: &Caller, entitlement: Entitlement, project: &str) -> Result<(), ApiError> {
    match caller.listener {
        Listener::Admin => Ok(()),
    }
    .inspect(|()| tracing::trace!(?caller, ?entitlement, project, "allowed"))
}
