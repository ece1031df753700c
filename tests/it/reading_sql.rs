//! Reading: what SQL users may rely on.

mod views;
