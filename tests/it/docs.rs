//! The documents against the code, their language, and the content of packages.

mod architecture;
mod dependencies;
mod guide;
mod language;
mod package;
