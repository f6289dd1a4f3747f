//! Text to tokens.

use super::ExprError;

/// Longest expression, in characters.
const LENGTH_LIMIT: usize = 16_384;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Name(String),
    /// `$rip`
    Register(String),
    Integer {
        value: u128,
        unsigned: bool,
        long: bool,
    },
    Float(f64),
    Char(char),
    Text(String),
    /// `'file.c'`
    Quoted(String),
    /// Any operator or bracket.
    Mark(&'static str),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Spanned {
    pub token: Token,
    /// From 1.
    pub column: usize,
    /// Nothing stands between this token and the one before.
    pub glued: bool,
}

/// Longest first, so that `->` is not `-`.
const MARKS: [&str; 32] = [
    "..", "->", "::", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", ".", "[", "]", "(", ")", "*",
    "&", "+", "-", "/", "%", "<", ">", "!", "~", "|", "^", ",", "{", "}", ";",
];

pub fn tokens(text: &str) -> Result<Vec<Spanned>, ExprError> {
    let characters: Vec<char> = text.chars().take(LENGTH_LIMIT + 1).collect();
    if characters.len() > LENGTH_LIMIT {
        return Err(ExprError::at(LENGTH_LIMIT, "the expression is too long"));
    }
    let mut lexer = Lexer {
        characters: &characters,
        at: 0,
    };
    let mut found: Vec<Spanned> = Vec::new();
    loop {
        let before = lexer.at;
        lexer.skip_blanks();
        let column = lexer.at + 1;
        let glued = before == lexer.at;
        let after_dot = found
            .last()
            .is_some_and(|last| last.token == Token::Mark("."));
        let Some(token) = lexer.next(after_dot)? else {
            return Ok(found);
        };
        found.push(Spanned {
            token,
            column,
            glued,
        });
    }
}

struct Lexer<'a> {
    characters: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.at + ahead).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek(0).is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(&keep) {
            self.at += 1;
        }
        self.characters[start..self.at].iter().collect()
    }

    fn next(&mut self, after_dot: bool) -> Result<Option<Token>, ExprError> {
        let Some(first) = self.peek(0) else {
            return Ok(None);
        };
        if first.is_alphabetic() || first == '_' {
            return Ok(Some(Token::Name(
                self.take_while(|c| c.is_alphanumeric() || c == '_'),
            )));
        }
        if first.is_ascii_digit() {
            return self.number(after_dot).map(Some);
        }
        match first {
            '$' => {
                self.at += 1;
                Ok(Some(Token::Register(
                    self.take_while(|c| c.is_alphanumeric() || c == '_'),
                )))
            }
            '"' => Ok(Some(Token::Text(self.quoted('"')?))),
            '\'' => {
                let column = self.at + 1;
                let text = self.quoted('\'')?;
                let mut characters = text.chars();
                match (characters.next(), characters.next()) {
                    (Some(only), None) => Ok(Some(Token::Char(only))),
                    (None, _) => Err(ExprError::at(column, "an empty character")),
                    _ => Ok(Some(Token::Quoted(text))),
                }
            }
            _ => self.mark().map(Some),
        }
    }

    fn mark(&mut self) -> Result<Token, ExprError> {
        let found = MARKS.iter().find(|mark| {
            mark.chars()
                .enumerate()
                .all(|(ahead, c)| self.peek(ahead) == Some(c))
        });
        match found {
            Some(mark) => {
                self.at += mark.len();
                Ok(Token::Mark(mark))
            }
            None => Err(ExprError::at(
                self.at + 1,
                format!("unexpected `{}`", self.peek(0).unwrap_or(' ')),
            )),
        }
    }

    /// After a dot digits are a tuple's field: `t.0.1` holds no float.
    fn number(&mut self, after_dot: bool) -> Result<Token, ExprError> {
        let column = self.at + 1;
        let bad = || ExprError::at(column, "not a number");
        let radix = match (self.peek(0), self.peek(1)) {
            (Some('0'), Some('x' | 'X')) => 16,
            (Some('0'), Some('b' | 'B')) => 2,
            (Some('0'), Some('o')) => 8,
            _ => 10,
        };
        if radix != 10 {
            self.at += 2;
        }
        let mut digits = self
            .take_while(|c| c.is_digit(radix) || c == '_')
            .replace('_', "");
        let fraction = radix == 10
            && !after_dot
            && self.peek(0) == Some('.')
            && self.peek(1).is_some_and(|c| c.is_ascii_digit());
        let exponent = radix == 10
            && !after_dot
            && matches!(self.peek(0), Some('e' | 'E'))
            && self.peek(1).is_some_and(|c| c.is_ascii_digit() || c == '-');
        if fraction || exponent {
            digits.push_str(&self.take_while(|c| c.is_ascii_digit() || c == '.'));
            if matches!(self.peek(0), Some('e' | 'E')) {
                self.at += 1;
                digits.push('e');
                digits.push_str(&self.take_while(|c| c.is_ascii_digit() || c == '-' || c == '+'));
            }
            return digits.parse().map(Token::Float).map_err(|_| bad());
        }
        let value = u128::from_str_radix(&digits, radix).map_err(|_| bad())?;
        let suffix = if after_dot {
            String::new()
        } else {
            self.take_while(char::is_alphanumeric).to_lowercase()
        };
        let (unsigned, long) = match suffix.as_str() {
            "" | "i8" | "i16" | "i32" => (false, false),
            "u" | "u8" | "u16" | "u32" => (true, false),
            "l" | "ll" | "i64" | "isize" => (false, true),
            "ul" | "ull" | "lu" | "llu" | "u64" | "usize" => (true, true),
            _ => return Err(bad()),
        };
        Ok(Token::Integer {
            value,
            unsigned,
            long,
        })
    }

    fn quoted(&mut self, end: char) -> Result<String, ExprError> {
        let column = self.at + 1;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek(0) {
            self.at += 1;
            match c {
                c if c == end => return Ok(text),
                '\\' => text.push(self.escape(column)?),
                c => text.push(c),
            }
        }
        Err(ExprError::at(column, "a quote is not closed"))
    }

    fn escape(&mut self, column: usize) -> Result<char, ExprError> {
        let c = self
            .peek(0)
            .ok_or_else(|| ExprError::at(column, "a quote is not closed"))?;
        self.at += 1;
        Ok(match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            '0' => '\0',
            'x' => {
                let digits: String = (0..2)
                    .filter_map(|ahead| self.peek(ahead))
                    .filter(char::is_ascii_hexdigit)
                    .collect();
                self.at += digits.len();
                let code = u8::from_str_radix(&digits, 16)
                    .map_err(|_| ExprError::at(column, "a bad escape"))?;
                char::from(code)
            }
            other => other,
        })
    }
}
