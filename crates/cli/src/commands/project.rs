//! `project`.

use clap::Subcommand;
use stapes_api::{Project as ApiProject, ProjectPost, ProjectPut, ProjectState, ProjectsPost};
use stapes_client::Target;

use super::{ListFormat, yes_no};
use crate::context::{Ctx, pairs, piped_input, settings_of};
use crate::failure::Result;
use crate::object::Object;
use crate::table::{self, Columns, Format};
use crate::{out, units, yaml};

#[derive(Debug, Subcommand)]
pub enum Project {
    /// Create a project; YAML is read from a pipe
    #[command(visible_alias = "add")]
    Create {
        project: String,
        #[arg(long, short, value_name = "KEY=VALUE")]
        config: Vec<String>,
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a project
    #[command(visible_aliases = ["rm", "remove"])]
    Delete {
        project: String,
        /// With all it holds
        #[arg(long, short)]
        force: bool,
    },
    /// Edit as YAML
    Edit { project: String },
    /// Print one key
    Get {
        project: String,
        key: String,
        #[arg(long, short)]
        property: bool,
    },
    /// Print the project that commands work in
    GetCurrent,
    /// Show limits and use
    Info {
        project: String,
        #[arg(long, short, default_value = "table")]
        format: Format,
    },
    /// List projects
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "REMOTE:")]
        remote: Option<String>,
        /// n name, i images, p profiles, v volumes, b buckets, w networks, z zones, d description, u used by
        #[arg(long, short, default_value = "nipvbwzdu")]
        columns: String,
        #[command(flatten)]
        format: ListFormat,
    },
    /// Rename a project
    #[command(visible_alias = "mv")]
    Rename { project: String, new: String },
    /// Set keys
    Set {
        project: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[arg(long, short)]
        property: bool,
    },
    /// Print all
    Show { project: String },
    /// Choose the project that commands work in
    Switch { project: String },
    /// Unset a key
    Unset {
        project: String,
        key: String,
        #[arg(long, short)]
        property: bool,
    },
}

fn feature(project: &ApiProject, key: &str) -> String {
    yes_no(project.config.get(key).is_some_and(|v| matches!(v.as_str(), "true" | "1" | "yes" | "on")))
}

const COLUMNS: &Columns<ApiProject> = &[
    ('n', "NAME", |p| p.name.clone()),
    ('i', "IMAGES", |p| feature(p, "features.images")),
    ('p', "PROFILES", |p| feature(p, "features.profiles")),
    ('v', "STORAGE VOLUMES", |p| feature(p, "features.storage.volumes")),
    ('b', "STORAGE BUCKETS", |p| feature(p, "features.storage.buckets")),
    ('w', "NETWORKS", |p| feature(p, "features.networks")),
    ('z', "NETWORK ZONES", |p| feature(p, "features.networks.zones")),
    ('d', "DESCRIPTION", |p| p.description.clone()),
    ('u', "USED BY", |p| p.used_by.len().to_string()),
];

fn object(ctx: &Ctx, spec: &str) -> Result<Object> {
    let name = ctx.name(spec, "a project")?;
    ctx.about("/1.0/projects", name);
    Ok(Object::new::<ProjectPut>(format!("project {name}"), Target::new("/1.0/projects").join(name)))
}

impl Project {
    pub async fn run(self, ctx: &Ctx) -> Result<()> {
        match self {
            Project::Create { project, config, description } => {
                let mut put: ProjectPut = yaml::parse(piped_input()?.as_deref().unwrap_or_default())?;
                put.config.extend(pairs(&config)?);
                let name = ctx.name(&project, "a project")?;
                let description = description.unwrap_or(put.description);
                let post = ProjectsPost { name: name.to_owned(), config: put.config, description };
                ctx.client.post("/1.0/projects", &post).await?;
                ctx.say(format!("Project {name} created"))
            }
            Project::Delete { project, force } => {
                let target = object(ctx, &project)?.target;
                ctx.client.delete(if force { target.query("force", "1") } else { target }).await?;
                ctx.say(format!("Project {} deleted", ctx.local(&project)?))
            }
            Project::Rename { project, new } => {
                ctx.client.post(object(ctx, &project)?.target, &ProjectPost { name: new.clone() }).await?;
                ctx.say(format!("Project {} renamed to {new}", ctx.local(&project)?))
            }
            Project::Edit { project } => {
                let help = "A project as YAML. Lines that start with # are ignored.";
                object(ctx, &project)?.edit(ctx, help, |_| ()).await
            }
            Project::Get { project, key, property } => object(ctx, &project)?.get(ctx, &key, property, "config").await,
            Project::Set { project, settings, property } => {
                object(ctx, &project)?.set(ctx, &settings_of(&settings)?, property, "config").await
            }
            Project::Unset { project, key, property } => {
                object(ctx, &project)?.unset(ctx, &key, property, "config").await
            }
            Project::Show { project } => object(ctx, &project)?.show(ctx).await,
            Project::GetCurrent => out::line(ctx.client.project()),
            Project::Switch { project } => {
                let name = ctx.name(&project, "a project")?;
                object(ctx, &project)?.load(ctx).await?;
                let mut settings = ctx.settings.clone();
                settings.project = (name != "default").then(|| name.to_owned());
                settings.save()
            }
            Project::Info { project, format } => info(ctx, &project, format).await,
            Project::List { remote, columns, format } => {
                ctx.local(remote.as_deref().unwrap_or_default())?;
                let mut projects: Vec<ApiProject> = ctx.client.get("/1.0/projects?recursion=1").await?;
                if format.format.is_rows() {
                    let current = ctx.client.project().to_owned();
                    projects.iter_mut().filter(|p| p.name == current).for_each(|p| p.name += " (current)");
                }
                table::list(&projects, COLUMNS, &columns, format.format)
            }
        }
    }
}

async fn info(ctx: &Ctx, spec: &str, format: Format) -> Result<()> {
    let state: ProjectState = ctx.client.get(object(ctx, spec)?.target.join("state")).await?;
    let in_bytes = |name: &str| matches!(name, "disk" | "memory");
    let amount = |name: &str, value: i64| match value {
        value if value < 0 => "UNLIMITED".to_owned(),
        value if in_bytes(name) => units::iec(value),
        value => value.to_string(),
    };
    let row = |(name, limit): (&String, &stapes_api::ProjectStateResource)| {
        vec![name.to_uppercase(), amount(name, limit.limit), amount(name, limit.usage)]
    };
    let rows = state.resources.iter().map(row).collect();
    out::put(table::render(format, &["RESOURCE", "LIMIT", "USAGE"], rows, &state.resources)?)
}
