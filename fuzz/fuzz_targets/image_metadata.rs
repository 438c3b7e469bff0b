//! `metadata.yaml` of an image: never panics, and what is accepted reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stapes_image::metadata::ImageMetadata;

fuzz_target!(|text: &str| {
    if let Ok(metadata) = ImageMetadata::parse(text) {
        let again = ImageMetadata::parse(&metadata.to_yaml()).expect("our own writing is read");
        assert_eq!(again.to_yaml(), metadata.to_yaml());
    }
});
