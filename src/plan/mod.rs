//! A checked recipe to a sealed plan: stages in order, each with its fingerprint.
