//! `metadata.yaml`: what an image says about itself. LXD's file has the same content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::ImageError;

/// Longest metadata.yaml that is read.
pub const MAX_METADATA_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMetadata {
    /// The kernel's name, as Incus stores it: `x86_64`, `aarch64`, …
    pub architecture: String,
    /// Seconds since 1970.
    pub creation_date: i64,
    /// Seconds since 1970; zero: never.
    pub expiry_date: i64,
    pub properties: BTreeMap<String, String>,
    /// By the path of the file in the instance that the template makes.
    pub templates: BTreeMap<String, TemplateSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateSpec {
    pub when: Vec<Trigger>,
    /// Only where the instance has no such file yet.
    #[serde(default)]
    pub create_only: bool,
    /// File name beneath `templates/`.
    pub template: String,
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    #[serde(default)]
    pub uid: Option<u32>,
    #[serde(default)]
    pub gid: Option<u32>,
    #[serde(default)]
    pub mode: Option<u32>,
}

/// When a template is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    Create,
    Copy,
    Start,
    Rename,
}

impl Trigger {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Copy => "copy",
            Self::Start => "start",
            Self::Rename => "rename",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Create, Self::Copy, Self::Start, Self::Rename].into_iter().find(|trigger| trigger.as_str() == text)
    }
}

impl ImageMetadata {
    /// Reads the text of a metadata.yaml; the error names the field that is wrong.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        if text.len() as u64 > MAX_METADATA_BYTES {
            return Err(wrong("(file)", format!("it is longer than {MAX_METADATA_BYTES} bytes")));
        }
        // One field at a time: the parser's message has a line, but the reader wants the field's name.
        let architecture: Architecture = field(text, "architecture")?;
        let Some(name) = architecture.architecture.filter(|name| !name.is_empty()) else {
            return Err(wrong("architecture", "it is missing"));
        };
        let created: Created = field(text, "creation_date")?;
        let expires: Expires = field(text, "expiry_date")?;
        let properties: Properties = field(text, "properties")?;
        let templates: Templates = field(text, "templates")?;
        Ok(Self {
            architecture: architecture_name(&name)?,
            creation_date: created.creation_date.unwrap_or(0),
            expiry_date: expires.expiry_date.unwrap_or(0),
            properties: texts(properties.properties),
            templates: templates
                .templates
                .unwrap_or_default()
                .into_iter()
                .map(|(path, raw)| template(&path, raw).map(|spec| (path, spec)))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The file that [`parse`](Self::parse) reads back.
    pub fn to_yaml(&self) -> String {
        // JSON is YAML, quoted beyond doubt; a property "12" must stay text for every reader.
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(templates) = value.get_mut("templates").and_then(|templates| templates.as_object_mut()) {
            for (path, template) in templates.iter_mut() {
                let Some(fields) = template.as_object_mut() else { continue };
                fields.retain(|_, field| !field.is_null());
                // Incus writes these three as text, the mode in octal.
                if let Some(mode) = self.templates[path].mode {
                    fields.insert("mode".into(), format!("{mode:04o}").into());
                }
                for key in ["uid", "gid"] {
                    if let Some(id) = fields.get_mut(key) {
                        *id = id.to_string().into();
                    }
                }
            }
        }
        serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
    }
}

#[derive(Deserialize)]
struct Architecture {
    architecture: Option<String>,
}
#[derive(Deserialize)]
struct Created {
    creation_date: Option<i64>,
}
#[derive(Deserialize)]
struct Expires {
    expiry_date: Option<i64>,
}
#[derive(Deserialize)]
struct Properties {
    properties: Option<BTreeMap<String, Option<String>>>,
}
#[derive(Deserialize)]
struct Templates {
    templates: Option<BTreeMap<String, RawTemplate>>,
}
#[derive(Deserialize)]
struct RawTemplate {
    when: Option<Vec<String>>,
    create_only: Option<bool>,
    template: Option<String>,
    properties: Option<BTreeMap<String, Option<String>>>,
    uid: Option<String>,
    gid: Option<String>,
    mode: Option<String>,
}

fn wrong(field: impl Into<String>, reason: impl Into<String>) -> ImageError {
    ImageError::Metadata { field: field.into(), reason: reason.into() }
}

fn field<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, ImageError> {
    serde_saphyr::from_str(text).map_err(|error| wrong(name, first_line(&error.to_string())))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn texts(map: Option<BTreeMap<String, Option<String>>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
}

fn template(path: &str, raw: RawTemplate) -> Result<TemplateSpec, ImageError> {
    let at = |field: &str| format!("templates.{path}.{field}");
    crate::paths::instance_path(path).map_err(|reason| wrong(format!("templates.{path}"), reason))?;
    let name = raw.template.filter(|name| !name.is_empty()).ok_or_else(|| wrong(at("template"), "it is missing"))?;
    crate::paths::template_name(&name).map_err(|reason| wrong(at("template"), reason))?;
    let when = raw.when.unwrap_or_default();
    let when = when
        .iter()
        .map(|text| {
            Trigger::parse(text).ok_or_else(|| {
                wrong(at("when"), format!("unknown trigger {text:?}; known are create, copy, start, rename"))
            })
        })
        .collect::<Result<_, _>>()?;
    let id = |field: &str, text: Option<String>| {
        text.filter(|text| !text.is_empty())
            .map(|text| text.parse::<u32>().map_err(|_| wrong(at(field), format!("{text:?} is no id"))))
            .transpose()
    };
    let mode = raw.mode.filter(|text| !text.is_empty()).map(|text| {
        let octal = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|mode| *mode <= 0o7777);
        octal.ok_or_else(|| wrong(at("mode"), format!("{text:?} is no octal mode")))
    });
    Ok(TemplateSpec {
        when,
        create_only: raw.create_only.unwrap_or(false),
        template: name,
        properties: texts(raw.properties),
        uid: id("uid", raw.uid)?,
        gid: id("gid", raw.gid)?,
        mode: mode.transpose()?,
    })
}

/// One name for each architecture, the kernel's, whichever of its names was given: `amd64` is `x86_64`.
pub fn architecture_name(name: &str) -> Result<String, ImageError> {
    let table: &[(&str, &[&str])] = &[
        ("x86_64", &["amd64"]),
        ("i686", &["i386", "i586", "386", "x86"]),
        ("aarch64", &["arm64"]),
        ("armv8l", &[]),
        ("armv7l", &["armhf", "armhfp", "armv7a_hardfp", "armv7", "armv7a_vfpv3_hardfp"]),
        ("armv6l", &["armel", "arm"]),
        ("ppc", &["powerpc"]),
        ("ppc64", &["powerpc64", "ppc64"]),
        ("ppc64le", &["ppc64el"]),
        ("s390x", &[]),
        ("mips", &["mipsel"]),
        ("mips64", &["mips64el"]),
        ("riscv32", &[]),
        ("riscv64", &[]),
        ("loongarch64", &["loong64"]),
    ];
    table
        .iter()
        .find(|(kernel, others)| *kernel == name || others.contains(&name))
        .map(|(kernel, _)| (*kernel).to_owned())
        .ok_or_else(|| wrong("architecture", format!("unknown architecture {name:?}")))
}

/// Debian's name for an architecture of ours; `None` where Debian has none.
pub fn debian_architecture(kernel: &str) -> Option<&'static str> {
    Some(match kernel {
        "x86_64" => "amd64",
        "i686" => "i386",
        "aarch64" => "arm64",
        "armv7l" => "armhf",
        "armv6l" => "armel",
        "ppc64le" => "ppc64el",
        "s390x" => "s390x",
        "mips64" => "mips64el",
        "riscv64" => "riscv64",
        "loongarch64" => "loong64",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "architecture: amd64\ncreation_date: 1700000000\nexpiry_date: 0\nproperties:\n  os: Debian\n  \
         release: 12.10\n  current: true\n  build: 0123\n  nothing:\ntemplates:\n  /etc/hostname:\n    when: [create, copy]\n    \
         template: hostname.tpl\n    uid: 0\n    mode: \"0640\"\n    properties: {a: 1}\n";

    #[test]
    fn scalars_of_any_type_become_the_text_that_was_written() {
        let metadata = ImageMetadata::parse(GOOD).unwrap();
        assert_eq!(metadata.architecture, "x86_64");
        for (key, value) in
            [("os", "Debian"), ("release", "12.10"), ("current", "true"), ("build", "0123"), ("nothing", "")]
        {
            assert_eq!(metadata.properties[key], value, "{key}");
        }
        let template = &metadata.templates["/etc/hostname"];
        assert_eq!((template.uid, template.mode), (Some(0), Some(0o640)));
        assert_eq!(template.when, [Trigger::Create, Trigger::Copy]);
        assert_eq!(template.properties["a"], "1");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let metadata = ImageMetadata::parse(GOOD).unwrap();
        assert_eq!(ImageMetadata::parse(&metadata.to_yaml()).unwrap(), metadata);
    }

    #[test]
    fn the_error_names_the_field() {
        for (text, field) in [
            ("creation_date: 1\n", "architecture"),
            ("architecture: vax\n", "architecture"),
            ("architecture: x86_64\ncreation_date: soon\n", "creation_date"),
            ("architecture: x86_64\nproperties: [1]\n", "properties"),
            (
                "architecture: x86_64\ntemplates:\n  /etc/x:\n    when: [boot]\n    template: x\n",
                "templates./etc/x.when",
            ),
            (
                "architecture: x86_64\ntemplates:\n  /etc/x:\n    when: [start]\n    template: ../x\n",
                "templates./etc/x.template",
            ),
            ("architecture: x86_64\ntemplates:\n  /../x:\n    when: [start]\n    template: x\n", "templates./../x"),
            (
                "architecture: x86_64\ntemplates:\n  /x:\n    when: [start]\n    template: x\n    mode: 9\n",
                "templates./x.mode",
            ),
        ] {
            let error = ImageMetadata::parse(text).unwrap_err();
            assert!(error.to_string().starts_with(&format!("metadata.yaml: {field}: ")), "{text}: {error}");
            assert_eq!(error.kind(), stapes_model::ErrorKind::BadRequest);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~\n\t]{0,200}") {
            let _ = ImageMetadata::parse(&text);
        }

        #[test]
        fn no_property_makes_it_panic_or_change(value in "[^\\x00-\\x08\\x0b-\\x1f\\x7f-\\u{9f}]{0,40}") {
            let mut metadata = ImageMetadata::parse(GOOD).unwrap();
            metadata.properties.insert("x".into(), value);
            prop_assert_eq!(ImageMetadata::parse(&metadata.to_yaml()).unwrap(), metadata);
        }
    }
}
