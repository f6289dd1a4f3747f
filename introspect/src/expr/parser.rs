//! Tokens to a tree, by precedence climbing.

use super::ExprError;
use super::lexer::{Spanned, Token, tokens};

/// Brackets and operators within one another.
const DEPTH_LIMIT: usize = 64;

pub use super::tree::{Kind, Node, Over, Path, Quantity, Selector, TypeSpec, Unary};

/// `is_type` tells `(name) * x`, a cast, from a product.
pub fn parse(text: &str, is_type: &dyn Fn(&str) -> bool) -> Result<Node> {
    let tokens = tokens(text)?;
    let end = text.chars().count() + 1;
    let mut parser = Parser {
        tokens,
        at: 0,
        end,
        depth: 0,
        is_type,
    };
    let node = parser.binary(0)?;
    match parser.tokens.get(parser.at) {
        None => Ok(node),
        Some(rest) => Err(ExprError::at(
            rest.column,
            "unexpected text after the expression",
        )),
    }
}

struct Parser<'a> {
    tokens: Vec<Spanned>,
    at: usize,
    end: usize,
    depth: usize,
    is_type: &'a dyn Fn(&str) -> bool,
}

type Result<T> = std::result::Result<T, ExprError>;

/// C's precedences; all group to the left.
const LEVELS: [&[&str]; 10] = [
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<", ">", "<=", ">="],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

const TYPE_WORDS: [&str; 34] = [
    "int", "char", "short", "long", "signed", "unsigned", "float", "double", "bool", "_Bool",
    "void", "const", "volatile", "struct", "union", "enum", "class", "i8", "i16", "i32", "i64",
    "i128", "isize", "u8", "u16", "u32", "u64", "u128", "usize", "f32", "f64", "size_t", "mut",
    "str",
];

impl Parser<'_> {
    fn column(&self) -> usize {
        self.tokens
            .get(self.at)
            .map_or(self.end, |token| token.column)
    }

    fn token(&self, ahead: usize) -> Option<&Token> {
        self.tokens
            .get(self.at + ahead)
            .map(|spanned| &spanned.token)
    }

    fn is_mark(&self, ahead: usize, mark: &str) -> bool {
        matches!(self.token(ahead), Some(Token::Mark(found)) if *found == mark)
    }

    fn accept(&mut self, mark: &str) -> bool {
        let found = self.is_mark(0, mark);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: &str) -> Result<()> {
        if self.accept(mark) {
            Ok(())
        } else {
            Err(self.error(&format!("expected `{mark}`")))
        }
    }

    fn error(&self, message: &str) -> ExprError {
        ExprError::at(self.column(), message)
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEPTH_LIMIT {
            return Err(self.error("the expression is nested too deeply"));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// An operand and every operator that binds at least as tightly as `level`.
    fn binary(&mut self, level: usize) -> Result<Node> {
        let mut left = self.deeper(Self::unary)?;
        for _ in 0..DEPTH_LIMIT {
            let column = self.column();
            let Some((binds, operator)) = self.operator().filter(|(binds, _)| *binds >= level)
            else {
                return Ok(left);
            };
            self.at += 1;
            let right = self.deeper(|parser| parser.binary(binds + 1))?;
            left = Node {
                kind: Kind::Binary(operator, Box::new(left), Box::new(right)),
                column,
            };
        }
        Err(self.error("the expression is too long"))
    }

    fn operator(&self) -> Option<(usize, &'static str)> {
        let Some(Token::Mark(mark)) = self.token(0) else {
            return None;
        };
        LEVELS
            .iter()
            .position(|level| level.contains(mark))
            .map(|level| (level, *mark))
    }

    fn unary(&mut self) -> Result<Node> {
        let column = self.column();
        let operator = match self.token(0) {
            Some(Token::Mark("*")) => Unary::Deref,
            Some(Token::Mark("&")) => Unary::AddressOf,
            Some(Token::Mark("-")) => Unary::Minus,
            Some(Token::Mark("!")) => Unary::Not,
            Some(Token::Mark("~")) => Unary::Complement,
            Some(Token::Mark("(")) => {
                if let Some(spec) = self.cast_type() {
                    let inner = self.deeper(Self::unary)?;
                    return Ok(Node {
                        kind: Kind::Cast(spec, Box::new(inner)),
                        column,
                    });
                }
                return self.postfix();
            }
            _ => return self.postfix(),
        };
        self.at += 1;
        let inner = self.deeper(Self::unary)?;
        Ok(Node {
            kind: Kind::Unary(operator, Box::new(inner)),
            column,
        })
    }

    /// `(T)` before an operand; leaves the position alone when it is none.
    fn cast_type(&mut self) -> Option<TypeSpec> {
        let start = self.at;
        self.at += 1;
        let spec = self.type_spec().filter(|_| self.accept(")"));
        let operand = match self.token(0) {
            Some(Token::Mark(mark)) => matches!(*mark, "(" | "*" | "&" | "-" | "!" | "~"),
            Some(_) => true,
            None => false,
        };
        let spec = spec.filter(|_| operand);
        if spec.is_none() {
            self.at = start;
        }
        spec
    }

    /// A type's name, then stars and perhaps a count. Rust's `*const T` and `&T` are understood.
    fn type_spec(&mut self) -> Option<TypeSpec> {
        let mut pointers = 0;
        while self.is_mark(0, "*") || self.is_mark(0, "&") {
            self.at += 1;
            pointers += 1;
        }
        let mut words: Vec<String> = Vec::new();
        let mut known = false;
        while let Some(Token::Name(word)) = self.token(0) {
            let word = word.clone();
            if word == "as" {
                break;
            }
            let tag = matches!(word.as_str(), "struct" | "union" | "enum" | "class");
            let qualifier = matches!(word.as_str(), "const" | "volatile" | "mut");
            known |= TYPE_WORDS.contains(&word.as_str()) && !qualifier;
            self.at += 1;
            if tag || qualifier {
                continue;
            }
            words.push(word + &self.type_tail());
        }
        let name = words.join(" ");
        if name.is_empty() || !(known || (self.is_type)(&name)) {
            return None;
        }
        while self.accept("*") {
            pointers += 1;
            while matches!(self.token(0), Some(Token::Name(word)) if word == "const" || word == "volatile")
            {
                self.at += 1;
            }
        }
        let mut count = None;
        if self.is_mark(0, "[")
            && let Some(Token::Integer { value, .. }) = self.token(1)
            && self.is_mark(2, "]")
        {
            count = u64::try_from(*value).ok();
            self.at += 3;
        }
        Some(TypeSpec {
            name,
            pointers,
            count,
        })
    }

    /// `::name` and `<...>` after a type's first word, as written.
    fn type_tail(&mut self) -> String {
        let mut tail = String::new();
        loop {
            if self.is_mark(0, "::")
                && let Some(Token::Name(word)) = self.token(1)
            {
                tail.push_str("::");
                tail.push_str(word);
                self.at += 2;
            } else if self.is_mark(0, "<")
                && let Some((text, len)) = self.generics()
            {
                tail.push_str(&text);
                self.at += len;
            } else {
                return tail;
            }
        }
    }

    /// Balanced generic arguments at the position, and how many tokens they are.
    fn generics(&self) -> Option<(String, usize)> {
        let mut text = String::new();
        let mut depth = 0usize;
        for (index, spanned) in self.tokens[self.at..].iter().enumerate() {
            match &spanned.token {
                Token::Mark("<") => depth += 1,
                Token::Mark(">") => depth = depth.checked_sub(1)?,
                Token::Mark(">>") => depth = depth.checked_sub(2)?,
                Token::Mark("::" | "," | "*" | "&" | "(" | ")" | "[" | "]" | ";")
                | Token::Name(_)
                | Token::Integer { .. } => {}
                _ => return None,
            }
            if !spanned.glued && index > 0 {
                text.push(' ');
            }
            match &spanned.token {
                Token::Mark(mark) => text.push_str(mark),
                Token::Name(name) => text.push_str(name),
                Token::Integer { value, .. } => text.push_str(&value.to_string()),
                _ => {}
            }
            if depth == 0 {
                return Some((text, index + 1));
            }
        }
        None
    }

    fn postfix(&mut self) -> Result<Node> {
        let mut node = self.primary()?;
        let mut steps = 0;
        loop {
            steps += 1;
            if steps > DEPTH_LIMIT {
                return Err(self.error("the expression is too long"));
            }
            let column = self.column();
            let kind = if self.accept(".") || self.accept("->") {
                // `a.*` as Zig and some debuggers write it is not ours.
                Kind::Member(Box::new(node), self.member_name()?)
            } else if self.accept("[") {
                self.subscript(node)?
            } else if matches!(self.token(0), Some(Token::Name(word)) if word == "as") {
                self.at += 1;
                let spec = self
                    .type_spec()
                    .ok_or_else(|| self.error("expected a type"))?;
                Kind::Cast(spec, Box::new(node))
            } else {
                return Ok(node);
            };
            node = Node { kind, column };
        }
    }

    fn member_name(&mut self) -> Result<String> {
        let name = match self.token(0) {
            Some(Token::Name(name)) => name.clone(),
            Some(Token::Integer { value, .. }) => value.to_string(),
            _ => return Err(self.error("expected a member's name")),
        };
        self.at += 1;
        Ok(name)
    }

    fn subscript(&mut self, of: Node) -> Result<Kind> {
        let low = if self.is_mark(0, "..") {
            None
        } else {
            Some(Box::new(self.binary(0)?))
        };
        if !self.accept("..") {
            self.expect("]")?;
            let index = low.ok_or_else(|| self.error("expected an index"))?;
            return Ok(Kind::Index(Box::new(of), index));
        }
        let high = if self.is_mark(0, "]") {
            None
        } else {
            Some(Box::new(self.binary(0)?))
        };
        self.expect("]")?;
        Ok(Kind::Slice(Box::new(of), low, high))
    }

    fn primary(&mut self) -> Result<Node> {
        let column = self.column();
        let Some(token) = self.token(0).cloned() else {
            return Err(self.error("expected an expression"));
        };
        let kind = match token {
            Token::Integer {
                value,
                unsigned,
                long,
            } => self.single(Kind::Integer {
                value,
                unsigned,
                long,
            }),
            Token::Float(value) => self.single(Kind::Float(value)),
            Token::Char(value) if !self.is_mark(1, "::") => self.single(Kind::Char(value)),
            Token::Text(value) => self.single(Kind::Text(value)),
            Token::Register(name) => self.single(Kind::Register(name)),
            Token::Mark("(") => {
                self.at += 1;
                let inner = self.binary(0)?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Name(name) => return self.named(&name, column),
            Token::Quoted(_) | Token::Mark("::") | Token::Char(_) => self.path()?,
            Token::Mark(_) => return Err(self.error("expected an expression")),
        };
        Ok(Node { kind, column })
    }

    fn single(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        kind
    }

    fn named(&mut self, name: &str, column: usize) -> Result<Node> {
        let called = self.is_mark(1, "(");
        let kind = match name {
            "true" => self.single(Kind::Bool(true)),
            "false" => self.single(Kind::Bool(false)),
            "NULL" | "nullptr" => self.single(Kind::Null),
            "len" if called => Kind::Len(Box::new(self.argument()?)),
            "sizeof" if called => Kind::SizeOf(Box::new(self.argument()?)),
            "any" | "all" | "count" | "sum" if called => self.over(name)?,
            "frame" if called => {
                let selector = self.frame_selector()?;
                Kind::InFrame(selector, Box::new(self.deeper(Self::primary)?))
            }
            "thread" if called => {
                let tid = self.thread_selector()?;
                Kind::InThread(tid, Box::new(self.deeper(Self::primary)?))
            }
            _ => self.path()?,
        };
        Ok(Node { kind, column })
    }

    fn argument(&mut self) -> Result<Node> {
        self.at += 2;
        let inner = self.binary(0)?;
        self.expect(")")?;
        Ok(inner)
    }

    /// `(v)`, `(v, test)`, `(v, x, test)`, `(m, k, v, test)`.
    fn over(&mut self, word: &str) -> Result<Kind> {
        let what = match word {
            "any" => Quantity::Any,
            "all" => Quantity::All,
            "count" => Quantity::Count,
            _ => Quantity::Sum,
        };
        self.at += 2;
        let of = self.deeper(|parser| parser.binary(0))?;
        let mut names = Vec::new();
        let mut test = None;
        if self.accept(",") {
            while let (Some(Token::Name(name)), true) = (self.token(0), self.is_mark(1, ",")) {
                if names.len() == 2 {
                    return Err(self.error("an element has at most two names, key and value"));
                }
                names.push(name.clone());
                self.at += 2;
            }
            test = Some(self.deeper(|parser| parser.binary(0))?);
        }
        self.expect(")")?;
        Ok(Kind::Over(Box::new(Over {
            what,
            of,
            names,
            test,
        })))
    }

    /// `(2).` or `(main).` or `(ns::f).`
    fn frame_selector(&mut self) -> Result<Selector> {
        self.at += 2;
        let selector = match self.token(0) {
            Some(Token::Integer { value, .. }) => {
                Selector::Index(usize::try_from(*value).map_err(|_| self.error("no such frame"))?)
            }
            Some(Token::Name(name)) => {
                let mut name = name.clone();
                while self.is_mark(1, "::")
                    && let Some(Token::Name(next)) = self.token(2)
                {
                    name = format!("{name}::{next}");
                    self.at += 2;
                }
                Selector::Function(name)
            }
            _ => return Err(self.error("expected a frame's number or function")),
        };
        self.at += 1;
        self.expect(")")?;
        self.expect(".")?;
        Ok(selector)
    }

    fn thread_selector(&mut self) -> Result<u32> {
        self.at += 2;
        let Some(Token::Integer { value, .. }) = self.token(0) else {
            return Err(self.error("expected a thread id"));
        };
        let tid = u32::try_from(*value).map_err(|_| self.error("no such thread"))?;
        self.at += 1;
        self.expect(")")?;
        self.expect(".")?;
        Ok(tid)
    }

    /// `file.c::a::b`, `'dir/file-1.c'::a`, `a::b<c>::d`.
    fn path(&mut self) -> Result<Kind> {
        let mut path = Path {
            file: self.file_prefix(),
            segments: Vec::new(),
        };
        self.accept("::");
        loop {
            let Some(Token::Name(name)) = self.token(0) else {
                return Err(self.error("expected a name"));
            };
            let mut segment = name.clone();
            self.at += 1;
            if self.is_mark(0, "<")
                && let Some((generics, len)) = self.generics()
                && matches!(self.tokens.get(self.at + len), Some(next) if next.token == Token::Mark("::"))
            {
                segment.push_str(&generics);
                self.at += len;
            }
            path.segments.push(segment);
            if !self.accept("::") {
                return Ok(Kind::Name(path));
            }
        }
    }

    fn file_prefix(&mut self) -> Option<String> {
        match self.token(0) {
            Some(Token::Quoted(file)) => {
                let file = file.clone();
                self.at += 1;
                Some(file)
            }
            // One letter in quotes lexes as a character.
            Some(Token::Char(file)) => {
                let file = file.to_string();
                self.at += 1;
                Some(file)
            }
            Some(Token::Name(_)) => self.bare_file(),
            _ => None,
        }
    }

    /// `dir/file.c` right before `::`, written without blanks.
    fn bare_file(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut dots = false;
        for (index, spanned) in self.tokens[self.at..].iter().enumerate().take(64) {
            if index > 0 && !spanned.glued {
                return None;
            }
            match &spanned.token {
                Token::Name(name) => text.push_str(name),
                Token::Integer { value, .. } => text.push_str(&value.to_string()),
                Token::Mark(".") => {
                    dots = true;
                    text.push('.');
                }
                Token::Mark(mark @ ("/" | "-" | "+")) => text.push_str(mark),
                Token::Mark("::") if dots => {
                    self.at += index;
                    return Some(text);
                }
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        parse(text, &|name| name == "node")
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .kind
    }

    #[test]
    fn files_paths_and_frames() {
        let Kind::Name(path) = kind("src/foo-2.c::var") else {
            panic!()
        };
        assert_eq!(
            (path.file.as_deref(), path.segments),
            (Some("src/foo-2.c"), vec!["var".to_owned()])
        );
        let Kind::Name(path) = kind("'a b.c'::ns::var") else {
            panic!()
        };
        assert_eq!(
            (path.file.as_deref(), path.segments.len()),
            (Some("a b.c"), 2)
        );
        let Kind::Name(path) = kind("A<int, B>::c") else {
            panic!()
        };
        assert_eq!(path.segments, ["A<int, B>", "c"]);
        assert!(matches!(
            kind("frame(2).x"),
            Kind::InFrame(Selector::Index(2), _)
        ));
        assert!(matches!(kind("frame(a::b).x.y"), Kind::Member(..)));
        assert!(matches!(
            kind("thread(12).frame(main).$rip"),
            Kind::InThread(12, _)
        ));
    }

    #[test]
    fn casts_are_not_products() {
        assert!(matches!(kind("(node)*x"), Kind::Cast(..)));
        assert!(matches!(kind("(edge)*x"), Kind::Binary("*", ..)));
        assert!(matches!(
            kind("(unsigned long*)x"),
            Kind::Cast(TypeSpec { pointers: 1, .. }, _)
        ));
        assert!(matches!(
            kind("*(struct node*)0x10"),
            Kind::Unary(Unary::Deref, _)
        ));
        assert!(matches!(
            kind("x as *const u8"),
            Kind::Cast(TypeSpec { pointers: 1, .. }, _)
        ));
        assert!(matches!(kind("(a)"), Kind::Name(_)));
    }

    #[test]
    fn tuples_slices_precedence() {
        assert!(matches!(kind("t.0.1"), Kind::Member(..)));
        assert!(matches!(kind("v[2..5]"), Kind::Slice(_, Some(_), Some(_))));
        assert!(matches!(kind("v[..]"), Kind::Slice(_, None, None)));
        let Kind::Binary("==", left, _) = kind("a + b * 2 == c") else {
            panic!()
        };
        assert!(matches!(left.kind, Kind::Binary("+", ..)));
        assert!(matches!(kind("a & b == c"), Kind::Binary("&", ..)));
    }

    #[test]
    fn elements_may_have_names() {
        let over = |text: &str| match kind(text) {
            Kind::Over(over) => (over.what, over.names.len(), over.test.is_some()),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(over("count(v)"), (Quantity::Count, 0, false));
        assert_eq!(over("any(v, _ > 3)"), (Quantity::Any, 0, true));
        assert_eq!(over("all(v, x, x.a > 3)"), (Quantity::All, 1, true));
        assert_eq!(over("sum(m, k, v, v * 2)"), (Quantity::Sum, 2, true));
        assert!(parse("any(m, a, b, c, 1)", &|_| false).is_err());
        assert!(matches!(kind("any"), Kind::Name(_)));
        assert!(matches!(kind("any(v, x, x) && y"), Kind::Binary("&&", ..)));
    }

    #[test]
    fn errors_carry_columns() {
        assert_eq!(parse("a + ", &|_| false).unwrap_err().column, 5);
        assert_eq!(parse("a b", &|_| false).unwrap_err().column, 3);
        assert_eq!(parse("\"abc", &|_| false).unwrap_err().column, 1);
        let deep = "(".repeat(5000);
        assert!(parse(&deep, &|_| false).is_err());
        assert!(parse(&"-".repeat(5000), &|_| false).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[a-z0-9 .:\\[\\]()*&+<>=!\"'$_-]{0,60}") {
            let parsed = parse(&text, &|name| name.len() == 1);
            proptest::prop_assert!(parsed.is_ok() || parsed.is_err());
        }
    }
}
