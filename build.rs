//! Compiles the CUDA kernels and the parts that call NVIDIA's libraries, for the feature `cuda`.

#![expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "cargo speaks to a build script by its environment, and hears of failures by its exit code"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::thread;

/// Where the sources lie.
const SOURCES: &str = "src/kernels/cuda";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Clippy links nothing, and what it builds is kept apart from what is run.
    if env::var_os("CARGO_FEATURE_CUDA").is_none() || cfg!(clippy) {
        return;
    }
    println!("cargo:rerun-if-changed={SOURCES}");
    for name in ["CUDA_HOME", "CUDA_PATH", "CUDA_COMPUTE_CAP"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let home = cuda_home();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let capability = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "90".to_owned());
    let jobs: usize = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    // cuDNN's part takes longest.
    let mut sources = sources();
    sources.sort_by_key(|path| !path.ends_with("sdpa.cpp"));
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        while let Some(source) =
            sources.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        {
            let object = object(&out, source, &capability);
            if !is_up_to_date(&object, source) {
                compile(&home, source, &object, &capability);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, 16) {
            scope.spawn(work);
        }
    });
    let library = out.join("libsft_kernels.a");
    // `ar` adds to an archive that is there: objects of sources that are gone would stay.
    let _ = std::fs::remove_file(&library);
    let objects = sources.iter().map(|source| object(&out, source, &capability));
    run(Command::new("ar").arg("crs").arg(&library).args(objects));
    println!("cargo:rustc-link-search=native={}", out.display());
    for folder in ["lib64", "lib", "lib/stubs", "lib64/stubs", "targets/x86_64-linux/lib"] {
        println!("cargo:rustc-link-search=native={}", home.join(folder).display());
    }
    // Whole, so that what loaded.cpp defines is there before the libraries are asked for it: they are
    // then not needed, and are opened when they are used.
    println!("cargo:rustc-link-lib=static:+whole-archive=sft_kernels");
    println!("cargo:rustc-link-lib=static=cudart_static");
    for name in ["cublasLt", "stdc++", "rt", "dl", "pthread"] {
        println!("cargo:rustc-link-lib=dylib={name}");
    }
}

/// The toolkit: `CUDA_HOME`, `CUDA_PATH`, or where it is usually installed.
fn cuda_home() -> PathBuf {
    let named = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(env::var_os).map(PathBuf::from);
    let usual = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda"].map(PathBuf::from);
    let found = named.chain(usual).find(|home| home.join("bin/nvcc").exists());
    found.unwrap_or_else(|| {
        fail("the feature `cuda` needs CUDA 13's nvcc: set CUDA_HOME, or run .ci/cuda/toolkit.sh")
    })
}

fn sources() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(SOURCES) else { fail("src/kernels/cuda is not there") };
    let is_source =
        |path: &PathBuf| path.extension().is_some_and(|end| end == "cu" || end == "cpp");
    let mut sources: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(is_source).collect();
    sources.sort();
    sources
}

fn object(out: &Path, source: &Path, capability: &str) -> PathBuf {
    let end = format!("sm_{capability}.o");
    out.join(source.file_name().unwrap_or_default()).with_added_extension(end)
}

/// Whether the object is younger than its source, all headers and this program.
fn is_up_to_date(object: &Path, source: &Path) -> bool {
    let time = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let Ok(entries) = std::fs::read_dir(SOURCES) else { return false };
    let is_header = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "cuh" || end == "h" || end == "inc")
    };
    let headers = entries.flatten().map(|entry| entry.path()).filter(is_header);
    let mut inputs = headers.chain([source.to_owned(), PathBuf::from("build.rs")]);
    time(object).is_some_and(|made| inputs.all(|path| time(&path).is_some_and(|at| at < made)))
}

fn compile(home: &Path, source: &Path, object: &Path, capability: &str) {
    let mut nvcc = Command::new(home.join("bin/nvcc"));
    nvcc.args(["-std=c++17", "-Xcompiler=-fPIC"]);
    // Hopper's own instructions, of linear_activation.cu.
    let target = if capability == "90" { "90a" } else { capability };
    nvcc.arg(format!("-gencode=arch=compute_{target},code=sm_{target}"));
    if source.extension().is_some_and(|end| end == "cpp") {
        // Templates of cudnn-frontend: compiled, not computed with.
        nvcc.args(["-O1", "-Xcompiler=-w", "-DNDEBUG", "-DNV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING"]);
        for name in ["CUDNN_FRONTEND_PATH", "CUDNN_PATH"] {
            println!("cargo:rerun-if-env-changed={name}");
            if let Some(path) = env::var_os(name) {
                nvcc.arg("-I").arg(PathBuf::from(path).join("include"));
            }
        }
    } else {
        nvcc.arg("-O3");
    }
    run(nvcc.arg("-c").arg(source).arg("-o").arg(object));
}

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!(
            "{command:?} ended with {status}; headers that are missing come with .ci/cuda/toolkit.sh (cuBLAS, cuDNN, cudnn-frontend)"
        )),
        Err(error) => fail(&format!("cannot run {command:?}: {error}")),
    }
}

fn fail(message: &str) -> ! {
    println!("cargo:warning={message}");
    exit(1)
}
