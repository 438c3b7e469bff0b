//! File templates of images: text → text.
//!
//! The templates are an image maker's code, run by root's daemon; in other managers they were the way out of several
//! guests. Here they get no loader, no file, no function but `config_get`, a short list of filters that cannot blow a
//! text up, and limits on steps and size.

mod pongo;

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value, filters};

pub use crate::metadata::Trigger;
use crate::{ImageError, ImageMetadata, TemplateSpec};

/// Longest template, and longest file that one renders.
pub const MAX_TEMPLATE_BYTES: usize = 256 * 1024;
pub const MAX_RENDERED_BYTES: usize = 1 << 20;
/// Instructions of minijinja's machine; a template of an official image takes under a hundred.
const FUEL: u64 = 200_000;

/// What a template may know.
#[derive(Debug, Clone, Default)]
pub struct TemplateContext {
    pub name: String,
    /// `container` or `virtual-machine`.
    pub instance_type: String,
    pub architecture: String,
    pub privileged: bool,
    pub ephemeral: bool,
    /// The expanded configuration.
    pub config: BTreeMap<String, String>,
    /// The expanded devices.
    pub devices: BTreeMap<String, BTreeMap<String, String>>,
    /// Properties of the image; the template's own win over them.
    pub properties: BTreeMap<String, String>,
}

/// A file to write into the instance, beneath its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedFile {
    /// Absolute inside the instance, without `..`.
    pub path: PathBuf,
    pub content: Vec<u8>,
    /// `None`: the instance's root.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// `None`: 0644, or what the file already has.
    pub mode: Option<u32>,
    /// Leave the file alone where it exists.
    pub create_only: bool,
}

/// Renders every template that this trigger asks for; `source` gives a template's text by its file name.
pub fn render(
    metadata: &ImageMetadata,
    trigger: Trigger,
    context: &TemplateContext,
    mut source: impl FnMut(&str) -> io::Result<String>,
) -> Result<Vec<RenderedFile>, ImageError> {
    let due = metadata.templates.iter().filter(|(_, template)| template.when.contains(&trigger));
    due.map(|(path, template)| {
        let wrong = |reason: String| ImageError::Template { template: template.template.clone(), reason };
        crate::paths::template_name(&template.template).map_err(wrong)?;
        crate::paths::instance_path(path).map_err(wrong)?;
        let text = source(&template.template).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        let content = render_one(&text, path, trigger, template, context).map_err(wrong)?;
        Ok(RenderedFile {
            path: PathBuf::from(path),
            content,
            uid: template.uid,
            gid: template.gid,
            mode: template.mode,
            create_only: template.create_only,
        })
    })
    .collect()
}

/// Renders from a volume that [`crate::unpack()`] filled: templates are read beneath `volume/templates`, never through a
/// symbolic link, since whoever was root in the instance's image wrote that folder.
pub fn render_volume(
    volume: &std::path::Path,
    metadata: &ImageMetadata,
    trigger: Trigger,
    context: &TemplateContext,
) -> Result<Vec<RenderedFile>, ImageError> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    render(metadata, trigger, context, |name| {
        let folder = std::fs::File::open(volume)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let path = std::path::Path::new("templates").join(name);
        let file = std::fs::File::from(rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, MAX_TEMPLATE_BYTES as u64 + 1), &mut text)?;
        Ok(text)
    })
}

fn render_one(
    text: &str,
    path: &str,
    trigger: Trigger,
    template: &TemplateSpec,
    context: &TemplateContext,
) -> Result<Vec<u8>, String> {
    if text.len() > MAX_TEMPLATE_BYTES {
        return Err(format!("it is longer than {MAX_TEMPLATE_BYTES} bytes"));
    }
    let translated = pongo::translate(text)?;
    let environment = environment(context);
    let compiled = environment.template_from_str(&translated).map_err(|error| explain(&error))?;
    // All text, as in Incus: templates compare with "true".
    let instance = BTreeMap::from([
        ("name", context.name.clone()),
        ("type", context.instance_type.clone()),
        ("architecture", context.architecture.clone()),
        ("privileged", context.privileged.to_string()),
        ("ephemeral", context.ephemeral.to_string()),
    ]);
    let mut properties = context.properties.clone();
    properties.extend(template.properties.clone());
    let values = minijinja::context! {
        trigger => trigger.as_str(),
        path => path,
        instance => &instance,
        container => &instance,
        config => &context.config,
        devices => &context.devices,
        properties => properties,
    };
    let mut output = Bounded(Vec::new());
    let rendered = compiled.render_captured_to(values, &mut output).map(drop);
    match rendered {
        Ok(()) => Ok(output.0),
        Err(error) => Err(explain(&error)),
    }
}

/// A template on its own, for the fuzz target.
pub(crate) fn render_text(text: &str) -> Result<Vec<u8>, String> {
    let template = TemplateSpec {
        when: Vec::new(),
        create_only: false,
        template: "fuzz".into(),
        properties: BTreeMap::new(),
        uid: None,
        gid: None,
        mode: None,
    };
    render_one(text, "/fuzz", Trigger::Create, &template, &TemplateContext::default())
}

fn explain(error: &minijinja::Error) -> String {
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps".to_owned(),
        ErrorKind::WriteFailure => format!("it renders more than {MAX_RENDERED_BYTES} bytes"),
        kind => match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}

fn environment(context: &TemplateContext) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    let keep_end = minijinja::syntax::SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(keep_end.expect("the default syntax is valid"));
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(64);
    // None of these makes a text longer by more than a constant: chains of `join` or `replace` would grow exponentially.
    environment.add_filter("default", default_filter);
    environment.add_filter("default_if_none", default_filter);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("upper", filters::upper);
    environment.add_filter("title", filters::title);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("length", filters::length);
    environment.add_filter("first", filters::first);
    environment.add_filter("last", filters::last);
    environment.add_filter("items", filters::items);
    environment.add_filter("safe", |value: Value| value);
    environment.add_filter("capfirst", |text: String| {
        let mut chars = text.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    });
    environment.add_filter("cut", |text: String, part: String| text.replace(&part, ""));
    let config = Arc::new(context.config.clone());
    environment.add_function("config_get", move |key: String, default: Option<Value>| {
        config.get(&key).map(Value::from).or(default).unwrap_or_else(|| Value::from(""))
    });
    environment
}

/// Django's and Pongo2's `default` replaces every false value, an empty text too.
fn default_filter(value: Value, default: Option<Value>) -> Value {
    if value.is_true() { value } else { default.unwrap_or_else(|| Value::from("")) }
}

/// A text that refuses to grow beyond [`MAX_RENDERED_BYTES`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn try_render(text: &str) -> Result<String, String> {
        let context = TemplateContext {
            name: "c1".into(),
            instance_type: "container".into(),
            architecture: "x86_64".into(),
            config: BTreeMap::from([("user.foo".into(), "bar".into()), ("user.empty".into(), String::new())]),
            devices: BTreeMap::from([("eth0".into(), BTreeMap::from([("type".into(), "nic".into())]))]),
            properties: BTreeMap::from([("os".into(), "Debian".into())]),
            ..TemplateContext::default()
        };
        let template = TemplateSpec {
            when: vec![Trigger::Create],
            create_only: false,
            template: "x.tpl".into(),
            properties: BTreeMap::from([("default".into(), "none".into())]),
            uid: None,
            gid: None,
            mode: None,
        };
        let bytes = render_one(text, "/etc/x", Trigger::Create, &template, &context)?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn what_official_images_use_works() {
        for (template, wanted) in [
            ("{{ container.name }}\n", "c1\n"),
            ("{{ instance.name }} {{instance.type}} {{ instance.privileged }}", "c1 container false"),
            ("{{ config_get(\"user.foo\", \"x\") }}{{ config_get(\"user.none\", properties.default) }}", "barnone"),
            ("{{ config_get('user.none', '') }}", ""),
            ("{{ nothing|default:\"y\" }}{{ properties.os|lower }}", "ydebian"),
            ("{% if trigger == \"create\" && !nothing %}{{ path }}{% endif %}", "/etc/x"),
            ("{% if config_get(\"user.network-config\", \"\") == \"\" %}dhcp{% else %}x{% endif %}", "dhcp"),
            ("{% for name, device in devices %}{{ name }}={{ device.type }}{% endfor %}", "eth0=nic"),
            ("{# a note #}{% comment %} {{ x }} {% endcomment %}<&>\n", "<&>\n"),
            ("{{ config.missing.deep }}", ""),
        ] {
            assert_eq!(try_render(template).as_deref(), Ok(wanted), "{template}");
        }
    }

    #[test]
    fn no_template_reaches_out_or_runs_away() {
        for bad in [
            "{% include \"/etc/passwd\" %}",
            "{% extends \"/etc/passwd\" %}",
            "{% import \"x\" as x %}",
            "{% ssi \"/etc/passwd\" %}",
            "{% set x = \"a\" %}",
            "{% with x = 1 %}{% endwith %}",
            "{% for a in \"0123456789\" %}{% for b in \"0123456789\" %}{% for c in \"0123456789\" %}\
             {% for d in \"0123456789\" %}{% for e in \"0123456789\" %}x{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
            "{{ \"aaaaaaaaaa\" * 1000000 }}",
            "{{ x|replace(\"a\", \"b\") }}",
            "{{ unclosed",
        ] {
            assert!(try_render(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([{%}|:a\"'#!& -.()]|\\{\\{|%\\}|\\}\\}|if|for|in){0,60}") {
            let _ = try_render(&text);
        }
    }
}
