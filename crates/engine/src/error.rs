use stapes_model::ErrorKind;

/// Why a workflow failed. The text names the subject; causes hang on the chain and are not repeated in the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {name:?} not found")]
    Missing { what: &'static str, name: String },
    #[error("{what} {name:?} already exists")]
    Exists { what: &'static str, name: String },
    /// A field of the request: its name, and what is wrong with it.
    #[error("{field}: {why}")]
    Invalid { field: String, why: String },
    /// The object is in a state that forbids the request.
    #[error("{0}")]
    Refused(String),
    /// Another operation holds the object.
    #[error("{what} {name:?} is busy: {holder} is under way")]
    Busy { what: &'static str, name: String, holder: String },
    #[error("{what} {name:?} is in use by {users}")]
    InUse { what: &'static str, name: String, users: String },
    /// The caller's `If-Match` names an older version.
    #[error("ETag does not match: {what} {name:?} was changed since it was read")]
    Stale { what: &'static str, name: String },
    #[error("the operation was canceled")]
    Canceled,
    #[error("nothing is left to take: {0}")]
    Exhausted(String),
    #[error("{doing}")]
    Failed {
        doing: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(transparent)]
    Name(#[from] stapes_model::NameError),
    #[error(transparent)]
    Key(#[from] stapes_model::keys::KeyError),
    #[error(transparent)]
    Device(#[from] stapes_device::DeviceError),
    #[error(transparent)]
    Driver(#[from] stapes_instance::DriverError),
    #[error(transparent)]
    Storage(#[from] stapes_storage::PoolError),
    #[error(transparent)]
    Network(#[from] stapes_network::NetworkError),
    #[error(transparent)]
    Image(#[from] stapes_image::ImageError),
    #[error(transparent)]
    Store(#[from] stapes_store::StoreError),
    #[error(transparent)]
    Journal(#[from] stapes_journal::JournalError),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn failed(doing: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed { doing: doing.into(), source: source.into() }
    }

    pub fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), why: why.into() }
    }

    pub fn missing(what: &'static str, name: impl ToString) -> Self {
        Self::Missing { what, name: name.to_string() }
    }

    pub fn exists(what: &'static str, name: impl ToString) -> Self {
        Self::Exists { what, name: name.to_string() }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Exists { .. } | Self::Busy { .. } => ErrorKind::Conflict,
            Self::Invalid { .. } | Self::Refused(_) | Self::InUse { .. } | Self::Canceled | Self::Name(_) => {
                ErrorKind::BadRequest
            }
            Self::Stale { .. } => ErrorKind::PreconditionFailed,
            Self::Exhausted(_) => ErrorKind::Exhausted,
            Self::Failed { .. } => ErrorKind::Internal,
            Self::Key(error) => error.kind(),
            Self::Device(error) => error.kind(),
            Self::Driver(error) => error.kind(),
            Self::Storage(error) => error.kind(),
            Self::Network(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Journal(error) => error.kind(),
        }
    }
}

/// The text of an error with its causes, joined by `: `, each said once.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
