/// What a caller may act on. Each library error maps itself to one of these; the REST layer maps each to one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong: 400.
    BadRequest,
    /// The caller may not do this: 403.
    Forbidden,
    /// The named thing does not exist: 404.
    NotFound,
    /// It exists already, or another operation holds it: 409.
    Conflict,
    /// `If-Match` did not match: 412.
    PreconditionFailed,
    /// This host, kernel or instance type cannot do it: 400, with the reason.
    Unsupported,
    /// Space, ids, ports or addresses ran out: 507.
    Exhausted,
    /// Something needed is not there right now (a stopped service, a vanished pool): 503.
    Unavailable,
    /// Everything else: 500.
    Internal,
}
