//! Several ranks acting as one device: groups, collectives, split layers.
