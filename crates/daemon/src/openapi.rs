//! The OpenAPI 3.1 description of the API, written from the table of routes and checked in as `docs/openapi.json`.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use stapes_api as api;

use crate::router::{Route, parameter_names, routes};

/// GET routes whose answer is no JSON envelope of a known type, and what it is.
const OTHER_ANSWERS: &[(&str, &str)] = &[
    ("/1.0/images/{fingerprint}/export", "the image's file, or a form with metadata and rootfs"),
    ("/1.0/instances/{name}/files", "a file's bytes, a symlink's target, or a JSON list of a directory's names"),
    ("/1.0/instances/{name}/sftp", "a connection that speaks SFTP"),
    ("/1.0/instances/{name}/console", "the console's log"),
    ("/1.0/instances/{name}/logs/exec-output/{file}", "what a command wrote"),
    ("/1.0/instances/{name}/logs/{file}", "the log file"),
    ("/1.0/events", "a websocket of events"),
    ("/1.0/operations/{id}/websocket", "a websocket of the operation's stream"),
    ("/1.0/metadata/configuration", "the configuration keys, by group"),
    ("/1.0/resources", "the host's resources"),
    ("/1.0/cluster", "whether this server is part of a cluster"),
];

/// Routes that Incus does not describe either: not part of what is promised.
fn is_internal(path: &str) -> bool {
    path.starts_with("/internal")
}

/// The description as a file.
pub fn text() -> String {
    // Maps, strings and numbers: writing them cannot fail.
    serde_json::to_string_pretty(&description()).unwrap_or_default() + "\n"
}

/// The whole description. Paths and methods are in the order of the route table, schemas in that of their names.
fn description() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = SchemaGenerator::new(settings);
    let error = generator.subschema_for::<api::ErrorDetails>();
    let mut paths = Map::new();
    for route in routes().iter().filter(|route| !is_internal(route.path)) {
        let path = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| path_item(route));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.as_str().to_ascii_lowercase(), method(route, &mut generator));
        }
    }
    let mut schemas: Vec<_> = generator.take_definitions(true).into_iter().collect();
    schemas.sort_by(|(one, _), (other, _)| one.cmp(other));
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Stapes REST API",
            "version": api::API_VERSION,
            "description": "Manages system containers and virtual machines. Compatible with the Incus REST API.",
        },
        "servers": [{ "url": "http://localhost", "description": "HTTP over the Unix socket unix.socket" }],
        "paths": paths,
        "components": {
            "schemas": Map::from_iter(schemas),
            "responses": {
                "Error": {
                    "description": "The request was refused or failed; error says why.",
                    "content": { "application/json": { "schema": envelope("error", &json!(error)) } },
                },
            },
        },
    })
}

/// What all methods of a path share: its parameters.
fn path_item(route: &Route) -> Value {
    let parameters: Vec<_> = parameter_names(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if parameters.is_empty() { json!({}) } else { json!({ "parameters": parameters }) }
}

fn method(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut method = Map::new();
    method.insert("operationId".to_owned(), operation_id(route).into());
    method.insert("summary".to_owned(), route.summary.into());
    method.insert("tags".to_owned(), json!([tag(route.path)]));
    method.insert("x-entitlement".to_owned(), format!("{:?}", route.needs).into());
    let query = query_parameters(route);
    if !query.is_empty() {
        method.insert("parameters".to_owned(), query.into());
    }
    if let Some(body) = route.body {
        let schema = body(generator);
        method.insert("requestBody".to_owned(), json!({ "content": { "application/json": { "schema": schema } } }));
    }
    let answer = route.answer.map(|answer| json!(answer(generator)));
    let is_operation =
        answer.as_ref().is_some_and(|schema| *schema == json!(generator.subschema_for::<api::Operation>()));
    let background = is_operation && route.method != hyper::Method::GET;
    let other = OTHER_ANSWERS.iter().find(|(path, _)| *path == route.path && route.method == hyper::Method::GET);
    let answer = match (answer, other) {
        (Some(schema), _) if background => json!({ "202": {
            "description": "An operation was started.",
            "content": { "application/json": { "schema": envelope("async", &schema) } },
        } }),
        (Some(schema), _) => json!({ "200": {
            "description": "Success.",
            "content": { "application/json": { "schema": envelope("sync", &schema) } },
        } }),
        (None, Some((_, what))) => json!({ "200": { "description": format!("Success: {what}.") } }),
        (None, None) => json!({ "2XX": {
            "description": "Success.",
            "content": { "application/json": { "schema": envelope("sync", &json!({ "type": "object" })) } },
        } }),
    };
    let mut answers = answer;
    answers["default"] = json!({ "$ref": "#/components/responses/Error" });
    method.insert("responses".to_owned(), answers);
    Value::Object(method)
}

/// The envelope of every JSON answer, around its metadata.
fn envelope(kind: &str, metadata: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["type", "status", "status_code", "operation", "error_code", "error", "metadata"],
        "properties": {
            "type": { "const": kind },
            "status": { "type": "string" },
            "status_code": { "type": "integer" },
            "operation": { "type": "string", "description": "The operation's path, where one was started" },
            "error_code": { "type": "integer" },
            "error": { "type": "string" },
            "metadata": metadata,
        },
    })
}

/// The first part of a path behind the version.
fn tag(path: &str) -> &str {
    path.trim_start_matches("/1.0").split('/').find(|part| !part.is_empty()).unwrap_or("server")
}

/// `GET /1.0/instances/{name}/files` → `getInstancesNameFiles`.
fn operation_id(route: &Route) -> String {
    let mut id = route.method.as_str().to_ascii_lowercase();
    for part in route.path.split(|letter: char| !letter.is_ascii_alphanumeric()) {
        let mut letters = part.chars();
        id.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        id.extend(letters);
    }
    id
}

/// The parameters that follow from what a route is: lists recurse and filter, and all but the server's own parts have a
/// project.
fn query_parameters(route: &Route) -> Vec<Value> {
    let text = |name: &str, description: &str| json!({ "name": name, "in": "query", "description": description, "schema": { "type": "string" } });
    let mut parameters = Vec::new();
    let scoped = ["instances", "images", "profiles", "operations", "events"].contains(&tag(route.path));
    if scoped {
        parameters.push(text("project", "The project; \"default\" when absent"));
    }
    let is_list = route.method == hyper::Method::GET && !route.path.ends_with('}') && route.summary.starts_with("List");
    if is_list {
        parameters.push(json!({
            "name": "recursion", "in": "query", "description": "0: URLs; 1: objects; 2: objects with their state",
            "schema": { "type": "integer", "minimum": 0, "maximum": 2 },
        }));
        parameters.push(text("filter", "Conditions such as \"name eq c1 and config.user.role eq web\""));
        if scoped {
            parameters.push(json!({
                "name": "all-projects", "in": "query", "description": "List every project's",
                "schema": { "type": "boolean" },
            }));
        }
    }
    if route.path.ends_with("/files") {
        let path = json!({
            "name": "path", "in": "query", "required": true, "description": "Path inside the instance",
            "schema": { "type": "string" },
        });
        parameters.push(path);
    }
    if route.path.ends_with("/wait") {
        parameters.push(json!({
            "name": "timeout", "in": "query", "description": "Seconds; negative: until it ends",
            "schema": { "type": "integer" },
        }));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::PathBuf};

    use super::*;

    fn file() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json")
    }

    #[test]
    fn the_checked_in_description_is_current() {
        let written = text();
        if std::env::var_os("STAPES_UPDATE").is_some() {
            std::fs::write(file(), &written).unwrap();
        }
        let checked_in = std::fs::read_to_string(file()).unwrap_or_default();
        if checked_in == written {
            return;
        }
        let differs = checked_in.lines().zip(written.lines()).position(|(old, new)| old != new);
        let line = differs.unwrap_or_else(|| checked_in.lines().count().min(written.lines().count())) + 1;
        panic!(
            "docs/openapi.json does not fit the routes (first difference in line {line}); write it anew with\n    \
             STAPES_UPDATE=1 cargo test -p stapes-daemon openapi"
        );
    }

    #[test]
    fn two_descriptions_are_the_same() {
        assert_eq!(description().to_string(), description().to_string());
    }

    #[test]
    fn every_route_says_what_it_does_and_every_get_what_it_answers() {
        let mut silent = Vec::new();
        for route in routes() {
            assert!(!route.summary.trim().is_empty(), "{} {} has no summary", route.method, route.path);
            let known = OTHER_ANSWERS.iter().any(|(path, _)| *path == route.path) || is_internal(route.path);
            if route.method == hyper::Method::GET && route.answer.is_none() && !known {
                silent.push(route.path);
            }
        }
        assert!(silent.is_empty(), "GET {silent:?}: name the answer's type, or add the path to OTHER_ANSWERS");
    }

    #[test]
    fn every_operation_has_an_id_of_its_own_and_every_reference_leads_somewhere() {
        let mut ids = BTreeSet::new();
        for route in routes() {
            assert!(ids.insert(operation_id(&route)), "two routes are called {}", operation_id(&route));
        }
        let description = description();
        let whole = description.to_string();
        for reference in whole.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(description.pointer(pointer).is_some(), "nothing is at {pointer}");
        }
    }
}
