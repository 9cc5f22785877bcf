//! XML-RPC as supervisord speaks it: one call and its answer as text.

use quick_xml::Reader;
use quick_xml::events::Event;
use std::fmt::Write as _;

/// Deepest value in a value.
const DEPTH_MAX: usize = 16;

/// A value in an answer. Numbers, booleans and texts are all kept as text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Scalar(String),
    Array(Vec<Value>),
    Struct(Vec<(String, Value)>),
}

impl Value {
    /// A member of a struct, as text.
    pub(super) fn member(&self, wanted: &str) -> Option<&str> {
        let Self::Struct(members) = self else {
            return None;
        };
        members.iter().find_map(|(name, value)| match value {
            Self::Scalar(text) if name == wanted => Some(text.as_str()),
            _ => None,
        })
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Value(Value),
    Fault { code: i64, text: String },
}

/// An argument.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument<'a> {
    Text(&'a str),
    Bool(bool),
}

/// The body of a call.
pub(super) fn call(method: &str, arguments: &[Argument<'_>]) -> String {
    let mut body =
        format!("<?xml version=\"1.0\"?><methodCall><methodName>{method}</methodName><params>");
    for argument in arguments {
        let _ = match argument {
            Argument::Text(text) => {
                let text = quick_xml::escape::escape(*text);
                write!(
                    body,
                    "<param><value><string>{text}</string></value></param>"
                )
            }
            Argument::Bool(flag) => {
                let flag = u8::from(*flag);
                write!(
                    body,
                    "<param><value><boolean>{flag}</boolean></value></param>"
                )
            }
        };
    }
    body.push_str("</params></methodCall>");
    body
}

/// Reads the body of an answer.
pub(super) fn answer(body: &str) -> Result<Answer, String> {
    let mut reader = Reader::from_str(body);
    let mut fault = false;
    loop {
        match next(&mut reader)? {
            Event::Start(tag) if tag.name().as_ref() == "fault" => fault = true,
            Event::Start(tag) if tag.name().as_ref() == "value" => {
                let value = value(&mut reader, 0)?;
                if !fault {
                    return Ok(Answer::Value(value));
                }
                let code = value.member("faultCode").and_then(|code| code.parse().ok());
                let text = value.member("faultString").unwrap_or_default().to_owned();
                return Ok(Answer::Fault {
                    code: code.unwrap_or(0),
                    text,
                });
            }
            Event::Eof => return Err("an answer without a value".to_owned()),
            _ => {}
        }
    }
}

fn next<'a>(reader: &mut Reader<&'a [u8]>) -> Result<Event<'a>, String> {
    reader.read_event().map_err(|error| error.to_string())
}

/// The rest of a `<value>`.
fn value(reader: &mut Reader<&[u8]>, depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err("an answer that is nested too deeply".to_owned());
    }
    let mut bare = String::new();
    let mut found = None;
    loop {
        match next(reader)? {
            Event::Start(tag) => {
                found = Some(match tag.name().as_ref() {
                    "array" => array(reader, depth)?,
                    "struct" => structure(reader, depth)?,
                    _ => Value::Scalar(text(reader)?),
                });
            }
            Event::Empty(_) => found = Some(Value::Scalar(String::new())),
            Event::End(_) => return Ok(found.unwrap_or(Value::Scalar(bare))),
            Event::Eof => return Err("an answer that breaks off".to_owned()),
            other => push_text(&mut bare, &other)?,
        }
    }
}

fn array(reader: &mut Reader<&[u8]>, depth: usize) -> Result<Value, String> {
    let mut items = Vec::new();
    loop {
        match next(reader)? {
            Event::Start(tag) if tag.name().as_ref() == "value" => {
                items.push(value(reader, depth + 1)?);
            }
            Event::End(tag) if tag.name().as_ref() == "array" => return Ok(Value::Array(items)),
            Event::Eof => return Err("an answer that breaks off".to_owned()),
            _ => {}
        }
    }
}

fn structure(reader: &mut Reader<&[u8]>, depth: usize) -> Result<Value, String> {
    let mut members = Vec::new();
    let mut name = String::new();
    loop {
        match next(reader)? {
            Event::Start(tag) if tag.name().as_ref() == "name" => name = text(reader)?,
            Event::Start(tag) if tag.name().as_ref() == "value" => {
                members.push((std::mem::take(&mut name), value(reader, depth + 1)?));
            }
            Event::End(tag) if tag.name().as_ref() == "struct" => {
                return Ok(Value::Struct(members));
            }
            Event::Eof => return Err("an answer that breaks off".to_owned()),
            _ => {}
        }
    }
}

/// The text up to the end of the tag.
fn text(reader: &mut Reader<&[u8]>) -> Result<String, String> {
    let mut out = String::new();
    loop {
        match next(reader)? {
            Event::End(_) => return Ok(out),
            Event::Eof => return Err("an answer that breaks off".to_owned()),
            other => push_text(&mut out, &other)?,
        }
    }
}

fn push_text(out: &mut String, event: &Event<'_>) -> Result<(), String> {
    match event {
        Event::Text(text) => out.push_str(&text.xml10_content()),
        Event::GeneralRef(reference) => {
            if let Some(c) = reference
                .resolve_char_ref()
                .map_err(|error| error.to_string())?
            {
                out.push(c);
            } else {
                let name = reference.xml10_content();
                let known = quick_xml::escape::resolve_predefined_entity(&name);
                out.push_str(known.ok_or_else(|| format!("an unknown entity '{name}'"))?);
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_and_faults() {
        let body = "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><array><data>\
            \n<value><struct>\n<member>\n<name>name</name>\n<value><string>a&lt;b&#33;</string></value>\
            \n</member>\n<member>\n<name>pid</name>\n<value><int>12</int></value>\n</member>\n<member>\
            \n<name>none</name>\n<value><string/></value>\n</member>\n</struct></value>\n</data></array>\
            </value>\n</param>\n</params>\n</methodResponse>";
        let Answer::Value(Value::Array(items)) = answer(body).unwrap() else {
            panic!()
        };
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].member("name"), Some("a<b!"));
        assert_eq!(items[0].member("pid"), Some("12"));
        assert_eq!(items[0].member("none"), Some(""));

        let body = "<methodResponse><fault><value><struct><member><name>faultCode</name><value>\
            <int>10</int></value></member><member><name>faultString</name><value><string>BAD_NAME: x\
            </string></value></member></struct></value></fault></methodResponse>";
        let expected = Answer::Fault {
            code: 10,
            text: "BAD_NAME: x".to_owned(),
        };
        assert_eq!(answer(body).unwrap(), expected);
        for end in 0..body.len() - "</value></fault></methodResponse>".len() {
            assert!(answer(&body[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn arguments_are_escaped() {
        let body = call(
            "supervisor.stopProcess",
            &[Argument::Text("a<b"), Argument::Bool(true)],
        );
        assert!(body.contains("<string>a&lt;b</string>") && body.contains("<boolean>1</boolean>"));
    }
}
