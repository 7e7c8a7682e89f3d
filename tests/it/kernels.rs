//! Tests of this subject; see main.rs.
