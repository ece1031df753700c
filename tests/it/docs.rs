//! The documents against the code, and the content of packages.

mod architecture;
mod dependencies;
mod guide;
mod package;
