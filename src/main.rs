//! The `sft-run` program: hands its arguments to `cli`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sft_run::cli::main(std::env::args_os().collect()).into()
}
