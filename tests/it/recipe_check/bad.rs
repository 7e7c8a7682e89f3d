//! Mistakes that people make, each with the error that they see (plain snapshots; `INSTA_UPDATE=always`).
