//! Compiles `purser/v1/*.proto` with protox, so that no system `protoc` is needed, and generates
//! the code for both runtimes: real tonic, and (under `sim/` in `OUT_DIR`) the simulated one.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

const PROTO_ROOT: &str = ".";
const PROTO_DIR: &str = "purser/v1";
/// What nodes speak among themselves: not in the published descriptors.
const PEER_PROTO: &str = "purser/peer/v1/peer.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let protos = proto_files(Path::new(PROTO_DIR))?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors_path = out_dir.join("purser.v1.bin");

    // With source info: `describe` over reflection then shows the comments.
    let descriptors = protox::compile(&protos, [PROTO_ROOT])?;
    fs::write(&descriptors_path, descriptors.encode_to_vec())?;

    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={PROTO_DIR}");
    let mut config = prost_build::Config::new();
    // `prost::Name`: who has a message can find its descriptor.
    config.enable_type_names();
    tonic_build::configure()
        .file_descriptor_set_path(&descriptors_path)
        .skip_protoc_run()
        .emit_rerun_if_changed(false)
        // Maps are compared and fingerprinted in order of their keys.
        .btree_map(["."])
        .compile_protos_with_config(config, &protos, &[PathBuf::from(PROTO_ROOT)])?;

    let descriptors_path = out_dir.join("purser.peer.v1.bin");
    fs::write(&descriptors_path, protox::compile([PEER_PROTO], [PROTO_ROOT])?.encode_to_vec())?;
    println!("cargo:rerun-if-changed={PEER_PROTO}");
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    tonic_build::configure()
        .file_descriptor_set_path(&descriptors_path)
        .skip_protoc_run()
        .emit_rerun_if_changed(false)
        .compile_protos_with_config(config, &[PathBuf::from(PEER_PROTO)], &[PathBuf::from(PROTO_ROOT)])?;
    Ok(())
}

/// The contract's files, in order of their names.
fn proto_files(dir: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
