//! The documents against the code, and what goes into packages.

mod architecture;
mod dependencies;
mod guide;
mod package;
