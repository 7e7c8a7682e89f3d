//! The store of stage outputs and the lock file.

mod adopt;
mod collect;
mod guard;
pub mod lock;
pub mod record;
mod stat_cache;
pub mod store;

pub use collect::{Collect, Entry, Fate};
pub use guard::{Claim, Guard, Named, claim_file, is_held, named};
pub use lock::{Lock, LockedInput, LockedStage, Standing};
pub use record::{FileRecord, Record};
pub use store::{Artifact, Error, Found, Made, Store, Work};
