//! Runs one thread per rank; the first that fails ends the run.

use super::mesh::Mesh;
use super::threads::Hub;
use crate::layout::mesh::{Coordinates, coordinates};
use crate::spec::optimization::Degrees;
use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope};

/// Why a run of several ranks ended: what happened first.
#[derive(Debug, thiserror::Error)]
pub struct Failure<E: std::error::Error + 'static> {
    /// Number of the rank.
    pub rank: usize,
    /// Where it stands.
    pub at: Coordinates,
    /// Ranks along each axis.
    pub degrees: Degrees,
    /// What happened to it.
    #[source]
    pub cause: Cause<E>,
}

impl<E: std::error::Error> fmt::Display for Failure<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { rank, at, degrees, .. } = self;
        let axes = [
            ("data", at.data, degrees.data),
            ("pipeline", at.pipeline, degrees.pipeline),
            ("tensor", at.tensor, degrees.tensor),
        ];
        let shared = axes.into_iter().filter(|(.., degree)| *degree > 1);
        let place: Vec<_> = shared.map(|(axis, at, _)| format!("{axis} {at}")).collect();
        write!(formatter, "rank {rank} of {} failed", degrees.world_size())?;
        if place.is_empty() { Ok(()) } else { write!(formatter, " ({})", place.join(", ")) }
    }
}

/// What happened to a rank.
#[derive(Debug, thiserror::Error)]
pub enum Cause<E: std::error::Error + 'static> {
    /// Its work failed.
    #[error(transparent)]
    Error(E),
    /// It panicked.
    #[error("it panicked: {0} (a bug of this program)")]
    Panic(String),
    /// Its thread could not be started.
    #[error("its thread cannot be started")]
    Thread(#[from] io::Error),
}

/// Runs `work` once for every rank, each on a thread of its own (the only one on the caller's), and
/// gives what they gave, in order. A panic of a rank is a failure too, whose message is told.
///
/// When a rank fails or panics, every other rank's next wait for it fails, and the failure that came
/// first is what this gives.
pub fn run<R: Send, E: std::error::Error + Send>(
    degrees: &Degrees,
    work: impl Fn(Mesh) -> Result<R, E> + Sync,
) -> Result<Vec<R>, Box<Failure<E>>> {
    let failure = |rank, cause| {
        Box::new(Failure { rank, at: coordinates(degrees, rank), degrees: *degrees, cause })
    };
    let ranks = degrees.world_size();
    let guarded = |mesh| match catch_unwind(AssertUnwindSafe(|| work(mesh))) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(Cause::Error(error)),
        Err(panic) => Err(Cause::Panic(message(panic.as_ref()))),
    };
    if ranks == 1 {
        let result = guarded(Mesh::single());
        return result.map(|result| vec![result]).map_err(|cause| failure(0, cause));
    }
    let hub = Hub::new(ranks);
    let first: Mutex<Option<(usize, Cause<E>)>> = Mutex::new(None);
    let results: Vec<Mutex<Option<R>>> = (0..ranks).map(|_| Mutex::new(None)).collect();
    let one = |rank: usize| match guarded(Mesh::of_threads(degrees, &hub, rank)) {
        Ok(result) => {
            *lock(&results[rank]) = Some(result);
            hub.end(rank);
        }
        Err(cause) if hub.fail(rank) => *lock(&first) = Some((rank, cause)),
        Err(_) => {}
    };
    std::thread::scope(|scope| {
        for rank in 0..ranks {
            if let Err(error) = spawn(scope, rank, &one)
                && hub.fail(rank)
            {
                *lock(&first) = Some((rank, Cause::Thread(error)));
            }
        }
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((rank, cause)) => Err(failure(rank, cause)),
        None => Ok(results.into_iter().filter_map(|result| lock(&result).take()).collect()),
    }
}

fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    rank: usize,
    one: &'scope (impl Fn(usize) + Sync),
) -> io::Result<()> {
    Builder::new().name(format!("rank {rank}")).spawn_scoped(scope, move || one(rank))?;
    Ok(())
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}
