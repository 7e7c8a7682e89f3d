//! Pages and files for people and tools, made from events and metrics.
