//! `/1.0/storage-pools`.

use std::sync::Arc;

use stapes_api as api;
use stapes_engine::records;
use stapes_model::PoolName;

use crate::{
    convert,
    reply::{Reply, Result, etag, to_value},
    request::Context,
    rest::instances::patched,
    route,
    router::Route,
};

pub fn routes() -> Vec<Route> {
    vec![
        route!(GET "/1.0/storage-pools" ViewStoragePools "List the storage pools", answer Vec<api::StoragePool> => list),
        route!(POST "/1.0/storage-pools" EditStoragePools "Create a storage pool", body api::StoragePoolsPost => create),
        route!(GET "/1.0/storage-pools/{pool}" ViewStoragePools "Get a storage pool", answer api::StoragePool => get),
        route!(PUT "/1.0/storage-pools/{pool}" EditStoragePools "Replace a storage pool's configuration",
            body api::StoragePoolPut => put),
        route!(PATCH "/1.0/storage-pools/{pool}" EditStoragePools "Change some of a storage pool's configuration",
            body api::StoragePoolPut => patch),
        route!(DELETE "/1.0/storage-pools/{pool}" EditStoragePools "Delete a storage pool" => delete),
        route!(GET "/1.0/storage-pools/{pool}/resources" ViewStoragePools "Get a storage pool's space",
            answer api::StoragePoolState => resources),
        route!(GET "/1.0/storage-pools/{pool}/volumes" ViewStoragePools "List a storage pool's volumes",
            answer Vec<api::StorageVolume> => volumes),
    ]
}

fn shown(context: &Context, name: &PoolName) -> Result<(api::StoragePool, records::Pool)> {
    let record = context.engine.pool_record(name)?;
    let available = context.engine.pool(name).is_ok();
    let shown =
        convert::pool(&record, context.engine.pool_users(name), available, context.engine.pool_shortcomings(name));
    Ok((shown, (*record.value).clone()))
}

async fn list(context: Context) -> Result {
    let names: Vec<_> = context.engine.index.read().pools.values().map(|pool| pool.name.clone()).collect();
    let mut objects = Vec::new();
    for name in names {
        objects.push((format!("/1.0/storage-pools/{name}"), to_value(&shown(&context, &name)?.0)?));
    }
    super::collection(&context, objects)
}

async fn create(mut context: Context) -> Result {
    let body: api::StoragePoolsPost = context.json().await?;
    let pool = records::Pool {
        name: body.name.parse()?,
        driver: body.driver,
        description: body.description,
        config: body.config,
    };
    let location = format!("/1.0/storage-pools/{}", pool.name);
    context.engine.create_pool(pool).await?;
    Ok(Reply::Created { location })
}

async fn get(context: Context) -> Result {
    let (shown, _) = shown(&context, &context.name("pool")?)?;
    Reply::tagged(&shown, &shown.clone().writable())
}

async fn put(mut context: Context) -> Result {
    let body: api::StoragePoolPut = context.json().await?;
    let name = context.name("pool")?;
    context.check_etag(&etag(&shown(&context, &name)?.0.writable())?)?;
    context.engine.update_pool(&name, body.description, body.config)?;
    Ok(Reply::empty())
}

async fn patch(mut context: Context) -> Result {
    let name = context.name("pool")?;
    let writable = shown(&context, &name)?.0.writable();
    let put: api::StoragePoolPut = patched(&mut context, &writable).await?;
    context.engine.update_pool(&name, put.description, put.config)?;
    Ok(Reply::empty())
}

async fn delete(context: Context) -> Result {
    context.engine.delete_pool(&context.name("pool")?).await?;
    Ok(Reply::empty())
}

async fn resources(context: Context) -> Result {
    let (engine, name) = (Arc::clone(&context.engine), context.name("pool")?);
    let space = context.engine.lanes.fast(move || Ok(engine.pool(&name)?.space()?)).await?;
    Reply::sync(&api::StoragePoolState {
        space: api::ResourcesStoragePoolSpace { used: space.used, total: space.total },
        inodes: api::ResourcesStoragePoolInodes { used: space.inodes_used, total: space.inodes_total },
    })
}

/// The volumes of instances and images, derived from their records.
async fn volumes(context: Context) -> Result {
    let pool: PoolName = context.name("pool")?;
    context.engine.pool_record(&pool)?;
    let mut objects = Vec::new();
    for (instance, _) in context.engine.instances(None) {
        if instance.pool != pool {
            continue;
        }
        let volume = api::StorageVolume {
            name: instance.name.to_string(),
            kind: instance.kind.as_str().to_owned(),
            used_by: vec![stapes_engine::app::instance_url(&instance.project, &instance.name)],
            location: "none".to_owned(),
            content_type: "filesystem".to_owned(),
            project: instance.project.to_string(),
            created_at: convert::time(instance.created_at),
            ..api::StorageVolume::default()
        };
        let url = format!("/1.0/storage-pools/{pool}/volumes/{}/{}", volume.kind, volume.name);
        objects.push((url, to_value(&volume)?));
    }
    super::collection(&context, objects)
}
