//! Many runs of one recipe: what is tried, in which order, which go on, and what came of them.

pub mod driver;
pub mod journal;
pub mod objective;
pub mod rungs;
pub mod sampler;
pub mod space;
pub mod state;
pub mod table;
pub mod trlx;

pub use driver::{Launch, Order, Outcome, drive};
pub use journal::{Header, Journal, Line};
pub use objective::{best_is_small, chosen, numbers, reached};
pub use space::{Axis, Domain, Space};
pub use state::{State, TrialEnd};
