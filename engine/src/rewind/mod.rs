//! placeholder
#[derive(Debug)]
pub struct Rewound;
