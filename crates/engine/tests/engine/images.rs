use std::path::PathBuf;

use stapes_engine::{
    Error,
    app::{ImageEdit, ImportedImage, bulk_task},
    operations::Operation,
};
use stapes_image::ImageFiles;
use stapes_model::{Fingerprint, ProjectName};

use crate::{Host, done, project};

/// A unified image of one file, as an upload leaves it.
fn upload(host: &Host, name: &str) -> PathBuf {
    let path = host.engine.paths.images().join(format!(".upload-{name}"));
    let mut archive = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut add = |path: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content).unwrap();
    };
    add("metadata.yaml", b"architecture: x86_64\ncreation_date: 1424284563\nproperties: {os: test}\n");
    add("rootfs/etc/hostname", b"c1\n");
    archive.finish().unwrap();
    path
}

impl Host {
    fn import(&self, project: &str, file: PathBuf) -> stapes_engine::Result<Fingerprint> {
        self.engine.import_image(ImportedImage {
            project: project.parse().unwrap(),
            files: ImageFiles { meta: file, rootfs: None },
            filename: "test.tar".into(),
            edit: ImageEdit::default(),
            aliases: vec![("test".parse().unwrap(), String::new())],
            expected: None,
            source: None,
        })
    }

    async fn delete_image(&self, project: &str, fingerprint: &Fingerprint) {
        let (engine, fingerprint) = (self.engine.clone(), fingerprint.clone());
        let project: ProjectName = project.parse().unwrap();
        let spec = bulk_task("Deleting image", &project, None);
        let work = move |operation: Operation| async move { engine.delete_image(&operation, &project, &fingerprint) };
        done(Ok(self.engine.operations.run(spec, work))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_two_projects_keeps_its_files_until_both_have_deleted_it() {
    let host = Host::new().await;
    let fingerprint = host.import("default", upload(&host, "1")).unwrap();
    assert_eq!(host.import("other", upload(&host, "2")).unwrap(), fingerprint);
    let file = host.engine.paths.image_meta(&fingerprint);
    host.delete_image("default", &fingerprint).await;
    assert!(file.exists() && host.engine.find_image(&project(), "test").is_err());
    assert!(host.engine.find_image(&"other".parse().unwrap(), "test").is_ok());
    host.delete_image("other", &fingerprint).await;
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_imports_of_one_image_at_once_leave_it_whole() {
    let host = Host::new().await;
    for round in 0..10 {
        let files = [upload(&host, &format!("a{round}")), upload(&host, &format!("b{round}"))];
        let outcomes = std::thread::scope(|scope| {
            files.map(|file| scope.spawn(|| host.import("default", file))).map(|import| import.join().unwrap())
        });
        let good: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(good.len(), 1, "{outcomes:?}");
        let refused = outcomes.iter().find_map(|outcome| outcome.as_ref().err()).unwrap();
        assert!(matches!(refused, Error::Exists { .. } | Error::Busy { .. } | Error::Store(_)), "{refused}");
        assert!(host.engine.paths.image_meta(good[0]).exists());
        host.delete_image("default", good[0]).await;
    }
}
