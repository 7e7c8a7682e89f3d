//! What the evaluation computes, each metric by its published definition.
