//! One file per stage kind: input folders in, one output folder out.
