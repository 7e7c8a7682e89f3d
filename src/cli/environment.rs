//! What surrounds a run: environment variables, the clock, the machine and versions.

use super::libraries;
use crate::base::digest::Digest;
use crate::recipe::Gpus;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The environment variables that are text.
pub fn variables() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// The current time, as RFC 3339 writes it, in whole seconds.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The current time in seconds since 1970.
pub fn seconds() -> f64 {
    jiff::Timestamp::now().as_duration().as_secs_f64()
}

/// What can change a run's numbers: program version, system, processor. It stands in the lock file.
pub fn machine() -> BTreeMap<String, String> {
    let entries = [
        ("sft_run", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("os", Some(operating_system())),
        ("kernel", kernel()),
        ("architecture", Some(std::env::consts::ARCH.to_owned())),
        ("cpu", cpu_model()),
        ("instructions", Some(instructions())),
        ("cores", Some(cores().to_string())),
    ];
    named(entries)
}

/// [`machine`], with the GPUs, their driver and NVIDIA's libraries for what computes on them.
///
/// `variables` are the process's environment variables.
pub fn computing(on_gpu: bool, variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut entries = machine();
    if !on_gpu {
        return entries;
    }
    let gpus = gpus().and_then(|gpus| gpus.name);
    entries.extend(named([("gpu", gpus), ("driver", driver())]));
    let search_path = variables.get("LD_LIBRARY_PATH").map(String::as_str);
    for library in libraries::find(search_path) {
        let version = library.version().map(str::to_owned);
        entries.extend(version.map(|version| (library.name.to_owned(), version)));
    }
    entries
}

/// [`computing`], and what is good to know beside it, for the summary and the report.
///
/// `folder` is where a git commit is looked for.
pub fn record(computing: BTreeMap<String, String>, folder: &Path) -> BTreeMap<String, String> {
    let changes = git(folder, &["status", "--porcelain", "--untracked-files=no"]);
    let entries = [
        ("memory", memory()),
        ("git_commit", git(folder, &["rev-parse", "HEAD"])),
        ("git_dirty", changes.map(|changes| (!changes.is_empty()).to_string())),
        ("git_diff", git_diff(folder)),
        ("build", Some(if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned())),
    ];
    computing.into_iter().chain(named(entries)).collect()
}

fn named<const N: usize>(entries: [(&str, Option<String>); N]) -> BTreeMap<String, String> {
    entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Threads that this process may run at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What `git` prints in `folder`, without the line end; none where there is no repository.
pub fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Hash of what differs from the commit; none without a repository or a difference.
fn git_diff(folder: &Path) -> Option<String> {
    let diff = git(folder, &["diff", "HEAD", "--no-ext-diff"]).filter(|diff| !diff.is_empty())?;
    Some(Digest::of_bytes(diff.as_bytes()).to_string())
}

/// Versions of the crates that numbers and texts come from.
pub fn crates() -> BTreeMap<String, String> {
    const NAMED: [&str; 8] = [
        "blake3",
        "candle-core",
        "cudarc",
        "gemm",
        "minijinja",
        "rayon",
        "safetensors",
        "tokenizers",
    ];
    let mut found = BTreeMap::new();
    let mut name = "";
    for line in include_str!("../../Cargo.lock").lines() {
        let quoted = |key: &str| Some(line.strip_prefix(key)?.trim_matches('"'));
        if let Some(named) = quoted("name = ") {
            name = named;
        } else if let Some(version) = quoted("version = ")
            && NAMED.contains(&name)
        {
            // The lowest of several versions is another crate's.
            found.insert(name.to_owned(), version.to_owned());
        }
    }
    found
}

/// The GPUs that NVIDIA's driver lists; none without one.
pub fn gpus() -> Option<Gpus> {
    let query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    let (name, mebibytes) = text.lines().next()?.rsplit_once(',')?;
    let memory = mebibytes.trim().parse::<u64>().ok().map(|size| size << 20);
    Some(Gpus { count: text.lines().count(), name: Some(name.trim().to_owned()), memory })
}

/// Version of NVIDIA's driver and the newest CUDA that it runs; none without one.
pub fn driver() -> Option<String> {
    let output =
        Command::new("nvidia-smi").output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |label: &str| {
        let (_, rest) = text.split_once(label)?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    Some(format!("{}, runs CUDA up to {}", after("Driver Version:")?, after("CUDA Version:")?))
}

/// The `NVLinks` of the first GPU; none when it has none.
pub fn nvlink() -> Option<String> {
    let output =
        Command::new("nvidia-smi").args(["nvlink", "--status", "-i", "0"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let links: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("Link ")).collect();
    let (_, rate) = links.first()?.split_once(": ")?;
    Some(format!("{} links of {rate} per GPU", links.len()))
}

fn operating_system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = pretty.map_or(std::env::consts::OS, |name| name.trim_matches('"'));
    name.to_owned()
}

fn kernel() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim().to_owned())
}

/// The vector instructions among which kernels and matrix products choose.
fn instructions() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let found = [
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
        ];
        let named: Vec<_> = found.iter().filter(|(_, here)| *here).map(|(name, _)| *name).collect();
        if !named.is_empty() {
            return named.join(" ");
        }
    }
    "baseline".to_owned()
}

fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The machine's memory, for people.
pub fn memory() -> Option<String> {
    memory_bytes().map(crate::report::numbers::bytes)
}

/// Bytes of memory that this process may use: the machine's, or less where a control group says so.
pub fn memory_bytes() -> Option<u64> {
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = group.and_then(|text| text.trim().parse::<u64>().ok());
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let machine = kilobytes.checked_mul(1024)?;
    Some(limit.map_or(machine, |limit| limit.min(machine)))
}
