//! One request as a handler sees it.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Request, StatusCode, body::Incoming};
use serde::de::DeserializeOwned;
use stapes_engine::Engine;
use stapes_model::{InstanceName, ProjectName};

use crate::{
    caller::Caller,
    daemon::Daemon,
    reply::{ApiError, Result},
};

/// Longest JSON body that is read; files and images stream and are not limited by it.
const JSON_LIMIT: usize = 4 << 20;

pub struct Context {
    pub daemon: Arc<Daemon>,
    pub engine: Arc<Engine>,
    pub caller: Caller,
    /// Path parameters by name, percent-decoded.
    pub params: HashMap<&'static str, String>,
    pub query: HashMap<String, String>,
    pub request: Request<Incoming>,
}

impl Context {
    pub fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A path parameter that must be a valid name.
    pub fn name<T: std::str::FromStr<Err = stapes_model::NameError>>(&self, name: &str) -> Result<T> {
        Ok(self.param(name).parse()?)
    }

    pub fn instance_name(&self) -> Result<InstanceName> {
        self.name("name")
    }

    pub fn flag(&self, name: &str) -> bool {
        self.query.get(name).is_some_and(|value| matches!(value.as_str(), "1" | "true"))
    }

    /// `recursion=`, 0 when absent.
    pub fn recursion(&self) -> u8 {
        self.query.get("recursion").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// `project=`, checked to exist.
    pub fn project(&self) -> Result<ProjectName> {
        let name: ProjectName = match self.query.get("project") {
            Some(text) if !text.is_empty() => text.parse()?,
            _ => return Ok(ProjectName::default_project()),
        };
        if self.engine.index.read().projects.contains_key(&format!("project/{name}")) {
            return Ok(name);
        }
        Err(ApiError::new(StatusCode::NOT_FOUND, format!("project {:?} not found", name.as_str())))
    }

    /// Refuses with 412 when the caller's `If-Match` is not `current`.
    pub fn check_etag(&self, current: &str) -> Result<()> {
        match self.headers().get(hyper::header::IF_MATCH).and_then(|value| value.to_str().ok()) {
            Some(tag) if tag.trim_matches('"') != current => Err(ApiError::new(
                StatusCode::PRECONDITION_FAILED,
                "ETag doesn't match: the object was changed since it was read; read it again",
            )),
            _ => Ok(()),
        }
    }

    /// Reads the whole body as JSON. An empty body is the type's default.
    pub async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::bad_request(format!("the request's JSON body cannot be read: {error}")))
    }

    pub async fn bytes(&mut self) -> Result<Bytes> {
        let body = Limited::new(self.request.body_mut(), JSON_LIMIT);
        let collected = body.collect().await.map_err(|error| {
            ApiError::bad_request(format!(
                "the request's body cannot be read (limit {} MiB): {error}",
                JSON_LIMIT >> 20
            ))
        })?;
        Ok(collected.to_bytes())
    }
}
