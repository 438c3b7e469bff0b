//! The table of routes: one list that serves requests, checks rights and writes the OpenAPI description.

use std::{collections::HashMap, future::Future, pin::Pin, sync::Arc};

use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use schemars::{Schema, SchemaGenerator};

use crate::{
    authorization::{Entitlement, authorize},
    caller::Caller,
    daemon::Daemon,
    percent::{parse_query, percent_decode},
    reply::{ApiError, Body, Result, into_response},
    request::Context,
    rest,
};

pub type Handler = fn(Context) -> Pin<Box<dyn Future<Output = Result> + Send>>;
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One method of one path. A route without an entitlement does not compile.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub needs: Entitlement,
    pub summary: &'static str,
    /// Type of the JSON body, if it takes one.
    pub body: Option<SchemaOf>,
    /// Type of the answer's `metadata`, if it has one.
    pub answer: Option<SchemaOf>,
    pub run: Handler,
}

/// Writes a [`Route`]: `route!(GET "/1.0" ViewServer "Get the server" => get)`, with `body T` and `answer T` between.
#[macro_export]
macro_rules! route {
    ($method:ident $path:literal $needs:ident $summary:literal
        $(, body $body:ty)? $(, answer $answer:ty)? => $run:path) => {
        $crate::router::Route {
            method: hyper::Method::$method,
            path: $path,
            needs: $crate::authorization::Entitlement::$needs,
            summary: $summary,
            body: $crate::route!(@schema $($body)?),
            answer: $crate::route!(@schema $($answer)?),
            run: |context| Box::pin($run(context)),
        }
    };
    (@schema) => { None };
    (@schema $type:ty) => { Some(|generator| generator.subschema_for::<$type>()) };
}

/// All routes, in the order of the documentation.
pub fn routes() -> Vec<Route> {
    rest::routes()
}

pub struct Router {
    paths: matchit::Router<HashMap<Method, Arc<Route>>>,
}

impl Router {
    /// Builds the router; two routes for the same method and path are a programming error that the tests find.
    pub fn new() -> anyhow::Result<Self> {
        let mut grouped: HashMap<&'static str, HashMap<Method, Arc<Route>>> = HashMap::new();
        for route in routes() {
            let methods = grouped.entry(route.path).or_default();
            let (method, path) = (route.method.clone(), route.path);
            if methods.insert(method.clone(), Arc::new(route)).is_some() {
                anyhow::bail!("two routes for {method} {path}");
            }
        }
        let mut paths = matchit::Router::new();
        for (path, methods) in grouped {
            paths.insert(path, methods)?;
        }
        Ok(Self { paths })
    }

    /// Serves one request.
    pub async fn serve(&self, daemon: Arc<Daemon>, caller: Caller, request: Request<Incoming>) -> Response<Body> {
        let started = std::time::Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = into_response(self.dispatch(daemon, caller, request).await);
        tracing::debug!(%method, path, status = response.status().as_u16(), micros = started.elapsed().as_micros());
        response
    }

    async fn dispatch(&self, daemon: Arc<Daemon>, caller: Caller, request: Request<Incoming>) -> Result {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let path = if path.is_empty() { "/" } else { path.as_str() };
        let found = self.paths.at(path).map_err(|_| ApiError::new(StatusCode::NOT_FOUND, "not found"))?;
        // HEAD is GET without its body; hyper leaves the body out.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let route = found.value.get(method).cloned().ok_or_else(|| {
            ApiError::new(StatusCode::NOT_IMPLEMENTED, format!("{method} is not supported on {path}"))
        })?;
        let params = path_params(&route, found.params)?;
        let query = parse_query(request.uri().query().unwrap_or_default());
        let project = query.get("project").map_or("default", String::as_str);
        authorize(&caller, route.needs, project)?;
        let engine = Arc::clone(&daemon.engine);
        (route.run)(Context { daemon, engine, caller, params, query, request }).await
    }
}

fn path_params(route: &Route, found: matchit::Params<'_, '_>) -> Result<HashMap<&'static str, String>> {
    let mut params = HashMap::new();
    for name in parameter_names(route.path) {
        let raw = found.get(name).unwrap_or_default();
        let value = percent_decode(raw)
            .ok_or_else(|| ApiError::bad_request(format!("the path part {raw:?} is not valid percent-encoded text")))?;
        params.insert(name, value);
    }
    Ok(params)
}

/// The names between braces, without matchit's `*`.
pub fn parameter_names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_start_matches('*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_routes_collide() {
        Router::new().unwrap();
    }
}
