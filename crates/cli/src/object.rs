//! What all objects with configuration have in common: show, get, set, unset, edit.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use stapes_client::Target;

use crate::context::{Ctx, piped_input};
use crate::failure::{Failure, Result, fail};
use crate::{editor, out, yaml};

/// An object of the API, and how to reduce it to what `PUT` takes.
#[derive(Debug)]
pub struct Object {
    /// Such as `instance c1`, for messages.
    pub label: String,
    pub target: Target,
    writable: fn(&Value) -> Result<Value>,
}

/// Reduces an object to the fields of `P`, typed and in its order.
fn reduce<P: DeserializeOwned + Serialize>(object: &Value) -> Result<Value> {
    let odd = |cause: serde_json::Error| Failure::new("a value has the wrong type").cause(cause);
    let put: P = serde_json::from_value(object.clone()).map_err(odd)?;
    serde_json::to_value(put).map_err(odd)
}

impl Object {
    /// `P` is the body of its `PUT`.
    pub fn new<P: DeserializeOwned + Serialize>(label: String, target: Target) -> Self {
        Object { label, target, writable: reduce::<P> }
    }

    /// The object and its ETag.
    pub async fn load(&self, ctx: &Ctx) -> Result<(Value, String)> {
        Ok(ctx.client.get_tagged::<Value>(self.target.clone()).await?)
    }

    /// What of it can be written.
    pub fn writable(&self, object: &Value) -> Result<Value> {
        (self.writable)(object)
    }

    pub async fn store(&self, ctx: &Ctx, object: &Value, etag: &str) -> Result<()> {
        let body = self.writable(object)?;
        let put = ctx.client.put(self.target.clone(), &body, etag).await;
        put.map_err(|error| Failure::from(error).hint_if_changed(&self.label))
    }

    pub async fn show(&self, ctx: &Ctx) -> Result<()> {
        let (object, _) = self.load(ctx).await?;
        out::put(yaml::to_text(&object))
    }

    /// One configuration value, or with `is_property` one field.
    pub async fn get(&self, ctx: &Ctx, key: &str, is_property: bool, map: &str) -> Result<()> {
        let (object, _) = self.load(ctx).await?;
        if !is_property {
            return out::line(object[map][key].as_str().unwrap_or_default());
        }
        match self.writable(&object)?.get(key).or_else(|| object.get(key)) {
            Some(Value::String(text)) => out::line(text),
            Some(value @ (Value::Array(_) | Value::Object(_))) => out::put(yaml::to_text(value)),
            Some(value) => out::line(value.to_string()),
            None => self.no_property(&object, key),
        }
    }

    pub async fn set(&self, ctx: &Ctx, pairs: &[(String, String)], is_property: bool, map: &str) -> Result<()> {
        let (mut object, etag) = self.load(ctx).await?;
        for (key, value) in pairs {
            if is_property {
                let typed = self.typed(&object, key, value)?;
                object[key] = typed;
            } else {
                config_of(&mut object, map).insert(key.clone(), Value::String(value.clone()));
            }
        }
        self.store(ctx, &object, &etag).await
    }

    pub async fn unset(&self, ctx: &Ctx, key: &str, is_property: bool, map: &str) -> Result<()> {
        let (mut object, etag) = self.load(ctx).await?;
        if is_property {
            let zero = match self.writable(&object)?.get(key) {
                Some(Value::Bool(_)) => Value::Bool(false),
                Some(Value::Number(_)) => Value::from(0),
                Some(Value::Array(_)) => Value::Array(Vec::new()),
                Some(Value::Object(_)) => Value::Object(Map::new()),
                Some(_) => Value::String(String::new()),
                None => return self.no_property(&object, key),
            };
            object[key] = zero;
        } else if config_of(&mut object, map).shift_remove(key).is_none() {
            fail!("{} has no own value for {key:?}, so it cannot be unset", self.label);
        }
        self.store(ctx, &object, &etag).await
    }

    /// Takes YAML from a pipe, or opens the editor. `help` stands above the text as comments.
    pub async fn edit(&self, ctx: &Ctx, help: &str, shown: impl Fn(&mut Map<String, Value>)) -> Result<()> {
        if let Some(text) = piped_input()? {
            return self.store(ctx, &yaml::parse::<Value>(&text)?, "").await;
        }
        let (mut object, etag) = self.load(ctx).await?;
        if let Some(fields) = object.as_object_mut() {
            shown(fields);
        }
        let comments: String = help.lines().map(|line| format!("### {line}\n")).collect();
        let text = format!("{comments}\n{}", yaml::to_text(&object));
        editor::until(text, async |text| self.store(ctx, &yaml::parse::<Value>(text)?, &etag).await).await
    }

    /// A property's new value in the type it has.
    fn typed(&self, object: &Value, key: &str, value: &str) -> Result<Value> {
        let wrong = |what: &str| Failure::new(format!("{key} of {} takes {what}, not {value:?}", self.label));
        match self.writable(object)?.get(key) {
            Some(Value::Bool(_)) => match value {
                "true" | "1" | "yes" | "on" => Ok(Value::Bool(true)),
                "false" | "0" | "no" | "off" | "" => Ok(Value::Bool(false)),
                _ => Err(wrong("true or false")),
            },
            Some(Value::Number(_)) => value.parse::<i64>().map(Value::from).map_err(|_| wrong("a whole number")),
            Some(Value::Array(_)) => Ok(value.split(',').filter(|p| !p.is_empty()).map(Value::from).collect()),
            Some(Value::Object(_)) => Err(wrong("several values; use `edit`")),
            Some(_) => Ok(Value::from(value)),
            None => self.no_property(object, key),
        }
    }

    fn no_property<T>(&self, object: &Value, key: &str) -> Result<T> {
        let known = self.writable(object).ok().and_then(|w| Some(w.as_object()?.keys().cloned().collect::<Vec<_>>()));
        let failure = Failure::new(format!("{} has no property {key:?}", self.label));
        Err(match known {
            Some(known) => failure.hint(format!("properties are {}", known.join(", "))),
            None => failure,
        })
    }
}

impl Failure {
    fn hint_if_changed(self, label: &str) -> Self {
        match (self.kind, &self.hint) {
            (Some(stapes_client::ErrorKind::Changed), None) => {
                self.hint(format!("{label} was changed by someone else meanwhile; look at it and try again"))
            }
            _ => self,
        }
    }
}

/// A map of the object, made if it is not there.
pub fn config_of<'a>(object: &'a mut Value, map: &str) -> &'a mut Map<String, Value> {
    if !object[map].is_object() {
        object[map] = Value::Object(Map::new());
    }
    match &mut object[map] {
        Value::Object(config) => config,
        _ => unreachable!("it was made an object above"),
    }
}
