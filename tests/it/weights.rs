//! Reading weight files: element types, shards, tables, and what is said about files that cannot be used.

mod files;
mod forms;
pub mod hostile;
mod messages;
mod odd;
mod pickle;
mod published;
mod tables;
