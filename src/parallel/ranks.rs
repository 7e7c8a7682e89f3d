//! Runs one thread per rank of this node; the first that fails ends the run, on all nodes.

use super::mesh::Mesh;
use super::nodes::{NodeFailure, Nodes};
use super::threads::Hub;
use crate::base::error_chain::with_causes;
use crate::layout::mesh::{Coordinates, coordinates};
use crate::spec::optimization::Degrees;
use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope};

/// Why a run of several ranks ended: what happened first.
#[derive(Debug, thiserror::Error)]
pub struct Failure<E: std::error::Error + 'static> {
    /// Number of the rank; of another node's failure, its first.
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
        let Failure { rank, at, degrees, cause } = self;
        if let Cause::Node(failure) = cause {
            return fmt::Display::fmt(failure, formatter);
        }
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
    #[error("it panicked: {0}")]
    Panic(String),
    /// Its thread could not be started.
    #[error("its thread cannot be started")]
    Thread(#[from] io::Error),
    /// Another node failed, or is lost.
    #[error(transparent)]
    Node(NodeFailure),
}

impl<E: std::error::Error> Cause<E> {
    /// Whether it may well not happen again: see [`NodeFailure::is_accident`].
    pub fn is_accident(&self) -> bool {
        match self {
            Cause::Panic(_) => true,
            Cause::Node(failure) => failure.is_accident,
            Cause::Error(_) | Cause::Thread(_) => false,
        }
    }
}

/// [`run_on`] this process alone.
pub fn run<R: Send, E: std::error::Error + Send + 'static>(
    degrees: &Degrees,
    work: impl Fn(Mesh) -> Result<R, E> + Sync,
) -> Result<Vec<R>, Box<Failure<E>>> {
    run_on(None, degrees, work)
}

/// Runs `work` once for every rank of this node, each on a thread of its own (the only one on the
/// caller's), and gives what they gave, in order. A panic of a rank is a failure too, whose message
/// is told. Without `nodes`, all ranks are this process's; with them, every node calls this, and
/// none comes back before all have done their work.
///
/// When a rank fails or panics, every other rank's next wait for it fails, and the failure that came
/// first is what this gives.
pub fn run_on<R: Send, E: std::error::Error + Send + 'static>(
    nodes: Option<&Arc<Nodes>>,
    degrees: &Degrees,
    work: impl Fn(Mesh) -> Result<R, E> + Sync,
) -> Result<Vec<R>, Box<Failure<E>>> {
    let failure = |rank, cause| {
        Box::new(Failure { rank, at: coordinates(degrees, rank), degrees: *degrees, cause })
    };
    let guarded = |mesh| match catch_unwind(AssertUnwindSafe(|| work(mesh))) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(Cause::Error(error)),
        Err(panic) => Err(Cause::Panic(message(panic.as_ref()))),
    };
    if degrees.world_size() == 1 {
        let result = guarded(Mesh::single());
        return result.map(|result| vec![result]).map_err(|cause| failure(0, cause));
    }
    let hub = nodes.map_or_else(|| Hub::new(degrees.world_size()), Hub::of_node);
    let here = nodes.map_or(0..degrees.world_size(), |nodes| nodes.place().ranks());
    let first: Mutex<Option<Box<Failure<E>>>> = Mutex::new(None);
    let results: Vec<Mutex<Option<R>>> = here.clone().map(|_| Mutex::new(None)).collect();
    let fail = |rank: usize, cause: Cause<E>| {
        // Ranks that fail later wait here: the devices' work is ended when the other nodes know why.
        let mut first = lock(&first);
        if hub.fail(rank) {
            let failure = failure(rank, cause);
            if let Some(nodes) = nodes {
                let told = with_causes(&*failure);
                if failure.cause.is_accident() { nodes.break_off(told) } else { nodes.fail(told) }
            }
            *first = Some(failure);
        }
        drop(first);
        #[cfg(feature = "cuda")]
        hub.give_up();
    };
    let one = |rank: usize| match guarded(Mesh::of_threads(degrees, &hub, rank)) {
        Ok(result) => {
            *lock(&results[hub.local(rank)]) = Some(result);
            hub.end(rank);
        }
        Err(cause) => fail(rank, cause),
    };
    std::thread::scope(|scope| {
        for rank in here {
            if let Err(error) = spawn(scope, rank, &one) {
                fail(rank, Cause::Thread(error));
            }
        }
    });
    if let Some(failure) = first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        // Whoever ends the devices' work, such as another node's connection, is not to be in the
        // middle of it when the process ends.
        #[cfg(feature = "cuda")]
        hub.give_up();
        return Err(failure);
    }
    if let Some(nodes) = nodes {
        // What this node's devices have for those of others must stay until all have taken it.
        #[cfg(feature = "cuda")]
        hub.settle();
        let met = nodes.meet();
        met.map_err(|ended| failure(nodes.place().ranks_of(ended.node).start, Cause::Node(ended)))?;
    }
    Ok(results.into_iter().filter_map(|result| lock(&result).take()).collect())
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
