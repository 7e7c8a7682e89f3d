//! Arguments in, events out: the only room that prints, reads the environment or picks an exit code.
