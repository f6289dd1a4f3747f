//! Rust: the library's containers, enums with niches, smart pointers, trait objects.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod support;

use serde_json::{Value, json};
use support::Fixture;

#[test]
fn containers_enums_and_pointers() {
    check(0);
}

#[test]
fn optimised_values_are_right_or_unavailable() {
    check(2);
}

fn check(level: u8) {
    let optimised = format!("-Copt-level={level}");
    let fixture = Fixture::c("values.rs", &["-g", &optimised, "--edition=2024"], &[]);
    let doubled: serde_json::Map<String, Value> =
        (0..500).map(|i| (i.to_string(), json!(i * 2))).collect();
    let tree: serde_json::Map<String, Value> = (0..100)
        .map(|i| (i.to_string(), json!(format!("v{i}"))))
        .collect();
    let rc = json!({"name": "rc", "tags": ["a", "b"], "friend": "None", "score": {"Some": 3}});
    let bob = json!({"name": "bob", "tags": ["t"], "friend": "None", "score": "None"});
    let table = [
        ("integer", json!(-5)),
        ("wide", json!(u64::MAX)),
        ("letter", json!("ß")),
        ("truth", json!(true)),
        ("owned", json!("owned")),
        ("slice_of", json!("wn")),
        ("numbers", json!([1, 2, 3])),
        ("numbers[2]", json!(3)),
        ("empty", json!([])),
        ("nested", json!([[1], [], [2, 3]])),
        ("borrowed", json!([2, 3])),
        ("array", json!([7, 7, 7])),
        ("tuple", json!([1, "two", 3.5])),
        ("tuple.1", json!("two")),
        ("ring", json!([2, 3, 4, 5, 6, 7, 8, 9])),
        ("ring[7]", json!(9)),
        ("some", json!({"Some": 5})),
        ("none", json!("None")),
        ("niche", json!({"Some": "niche"})),
        ("niche_none", json!("None")),
        ("boxed_none", json!("None")),
        ("ok", json!({"Ok": 1})),
        ("bad", json!({"Err": "bad"})),
        (
            "shapes",
            json!(["Unit", {"Circle": 1.5}, {"Rect": {"w": 2, "h": 3}}, {"Pair": [-1, "p"]}]),
        ),
        ("shapes[2].h", json!(3)),
        ("plain", json!(["A", "B", "C"])),
        ("option_plain", json!({"Some": "B"})),
        ("nested_option", json!({"Some": "None"})),
        ("boxed", json!(77)),
        ("boxed_str", json!("boxed str")),
        ("boxed_slice", json!([1, 2])),
        ("rc", rc),
        ("rc.tags[1]", json!("b")),
        ("arc", json!([1, 2])),
        ("arc_str", json!("shared")),
        ("rc_slice", json!([4, 5])),
        ("rc_dyn", json!({"name": "rex", "age": 3})),
        ("lock", json!(8)),
        ("cell", json!(4)),
        ("refcell", json!("inside")),
        ("atomic", json!(99)),
        ("nonzero", json!(6)),
        ("maybe_nonzero", json!("None")),
        ("map", json!({"k7": 7})),
        ("map[\"k7\"]", json!(7)),
        ("big_map[499]", json!(998)),
        ("set", json!(["x"])),
        ("tree", Value::Object(tree)),
        ("tree[63]", json!("v63")),
        ("empty_tree", json!({})),
        ("tree_set", json!(["a", "b"])),
        ("heap", json!([3])),
        ("linked", json!([1, 2, 3])),
        ("dynamic", json!({"name": "fido", "age": 9})),
        ("dynamic.name", json!("fido")),
        ("bird", json!(0.25)),
        (
            "person",
            json!({"name": "ann", "tags": [], "friend": {"Some": bob}, "score": "None"}),
        ),
        ("person.friend.Some.name", json!("bob")),
        ("meters", json!(2.5)),
        ("*pointer", json!(-5)),
        ("path", json!("/a/b")),
        ("cow", json!({"Borrowed": "cow"})),
        ("range", json!({"start": 2, "end": 5})),
        ("len(big_map)", json!(500)),
        ("len(owned)", json!(5)),
        ("raw.real", json!(1.0)),
        ("owned == \"owned\"", json!(true)),
    ];
    let (mut wrong, mut right, total) = (Vec::new(), 0, table.len());
    for (expr, want) in table {
        let expr = match expr.strip_prefix("len(").or(expr.strip_prefix('*')) {
            Some(rest) if expr.starts_with('l') => format!("len(frame(main).{rest}"),
            Some(rest) => format!("*frame(main).{rest}"),
            None => format!("frame(main).{expr}"),
        };
        match fixture
            .program
            .evaluate(&fixture.view, &introspect::Context::default(), &expr)
        {
            Ok(answer) if answer.value.to_json(1000) == want => right += 1,
            // Optimised away is an answer; a part of a value may be.
            Ok(answer)
                if level > 0
                    && answer
                        .value
                        .to_json(1000)
                        .to_string()
                        .contains("unavailable") => {}
            // rustc describes a reference that it took apart as a raw pointer.
            Ok(answer) if level > 0 && answer.type_name.starts_with('*') => {}
            Err(_) if level > 0 => {}
            other => wrong.push(format!(
                "{expr}: {:?}, wanted {want}, {}",
                other
                    .as_ref()
                    .map(|answer| answer.value.to_json(1000).to_string()),
                other.as_ref().map_or("", |answer| &answer.type_name)
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    eprintln!("opt-level {level}: {right} of {total} values");
    if level > 0 {
        assert!(right * 2 > total, "{right} of {total}");
        return;
    }
    assert_eq!(
        sorted(&fixture.json("frame(main).big_map")),
        sorted(&Value::Object(doubled))
    );
    let globals = [
        ("POPULATION", json!(1234)),
        ("COUNTER", json!(-10)),
        ("zoo::HIDDEN", json!(1)),
        ("frame(work).length", json!(5)),
        ("frame(work).text", json!("owned")),
        ("frame(work).animal", json!(0.25)),
    ];
    for (expr, want) in globals {
        assert_eq!(fixture.json(expr), want, "{expr}");
    }
    for endless in ["frame(main).chain", "frame(main).cycle"] {
        let text = fixture.json(endless).to_string();
        assert!(text.contains("nested too deeply"), "{endless}: {text}");
        assert!(
            serde_json::from_str::<Value>(&text).is_ok(),
            "{endless} is too deep for a JSON reader"
        );
    }
    assert_eq!(
        fixture.json("frame(main).cycle.next.Some.next.Some.id"),
        json!(5)
    );
    let pointer = fixture.json("frame(main).pointer");
    assert!(
        pointer["ptr"].as_str().unwrap().starts_with("0x"),
        "{pointer}"
    );
    assert!(
        fixture.text("frame(main).function").contains("work"),
        "{}",
        fixture.text("frame(main).function")
    );
    assert_eq!(fixture.text("frame(main).huge"), (1u128 << 100).to_string());
    assert_eq!(
        fixture.text("frame(main).shapes"),
        "{Unit, Circle(1.5), Rect {w = 2, h = 3}, Pair({-1, \"p\"})}"
    );
    let names: Vec<_> = fixture
        .frames()
        .iter()
        .take(3)
        .map(|frame| frame.function.clone().unwrap())
        .collect();
    assert_eq!(names[0], "values::stop_here");
    assert_eq!(
        (names[1].as_str(), names[2].as_str()),
        ("values::work", "values::main")
    );
}

fn sorted(map: &Value) -> std::collections::BTreeMap<String, String> {
    map.as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), value.to_string()))
        .collect()
}
