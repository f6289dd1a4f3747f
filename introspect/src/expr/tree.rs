//! The tree of an expression.

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub kind: Kind,
    pub column: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Integer {
        value: u128,
        unsigned: bool,
        long: bool,
    },
    Float(f64),
    Char(char),
    Text(String),
    Bool(bool),
    Null,
    Name(Path),
    Register(String),
    Unary(Unary, Box<Node>),
    Binary(&'static str, Box<Node>, Box<Node>),
    Member(Box<Node>, String),
    Index(Box<Node>, Box<Node>),
    Slice(Box<Node>, Option<Box<Node>>, Option<Box<Node>>),
    Cast(TypeSpec, Box<Node>),
    Len(Box<Node>),
    SizeOf(Box<Node>),
    Over(Box<Over>),
    InFrame(Selector, Box<Node>),
    InThread(u32, Box<Node>),
}

/// `any(v, x, test)`: something asked of the elements of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Over {
    pub what: Quantity,
    pub of: Node,
    /// What an element is called in the test: one name, or those of key and value; none means `_` and `_key`.
    pub names: Vec<String>,
    /// What is evaluated for each element; none means the element itself.
    pub test: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    Any,
    All,
    Count,
    Sum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    Deref,
    AddressOf,
    Minus,
    Not,
    Complement,
}

/// `file.c::ns::name`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path {
    pub file: Option<String>,
    pub segments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    Index(usize),
    Function(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeSpec {
    pub name: String,
    pub pointers: usize,
    pub count: Option<u64>,
}
