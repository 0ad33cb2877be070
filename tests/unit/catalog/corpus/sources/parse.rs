//! A parser.
use std::collections::HashMap;

#[derive(Debug)]
pub enum Token {
    Number(f64),
    Word(String),
}

pub struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    pub fn new(rest: &'a str) -> Self {
        Parser { rest }
    }

    fn next(&mut self) -> Option<Token> {
        let c = self.rest.chars().next()?;
        match c {
            '0'..='9' => Some(Token::Number(1.0)),
            '{' | '}' => None,
            '\'' => {
                if self.rest.is_empty() && c == 'x' {
                    return None;
                }
                Some(Token::Word(r#"raw " if { "#.to_string()))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /* outer /* nested if */ while */
        write!(f, "token")
    }
}

fn count<T>(items: &[T], keep: impl Fn(&T) -> bool) -> usize
where
    T: Clone,
{
    let mut n = 0;
    for item in items {
        if keep(item) || false {
            n += 1;
        }
    }
    while n > 100 {
        n -= 1;
    }
    n
}
