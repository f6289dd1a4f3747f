//! C++ library types of libstdc++, classes, namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod support;

use serde_json::{Value, json};
use support::{Fixture, gdb_frames, our_frames};

#[test]
fn containers_classes_and_names() {
    check("-O0");
}

#[test]
fn optimised_values_are_right_or_unavailable() {
    check("-O2");
}

fn check(level: &str) {
    let fixture = Fixture::c("values.cpp", &["-g", level, "-std=c++17"], &["bt"]);
    let optimised = level != "-O0";
    let every_third: Vec<bool> = (0..70).map(|i| i % 3 == 0).collect();
    let table = [
        ("small", json!("small")),
        ("large", json!("L".repeat(200))),
        ("empty", json!("")),
        ("view", json!("viewed")),
        ("numbers", json!([1, 2, 3])),
        (
            "words",
            json!(["alpha", "", "gamma and a long tail that is on the heap"]),
        ),
        ("bits", json!(every_third)),
        ("none", json!([])),
        ("arr", json!([7, 8, 9])),
        ("ring", json!((5..300).collect::<Vec<_>>())),
        ("ring[290]", json!(295)),
        ("nothing", json!([])),
        ("linked", json!([10, 20, 30])),
        ("singly", json!(["a", "b"])),
        ("byNumber", json!({"1": "one", "3": "three", "7": "seven"})),
        ("byNumber[7]", json!("seven")),
        ("byName", json!({"x": [1], "y": []})),
        ("byName[\"x\"][0]", json!(1)),
        ("sorted", json!([1, 2, 3, 5, 7, 8, 9])),
        ("wide", json!({"q": 1.5})),
        ("hashed", json!({"k7": 7})),
        ("hashed[\"k7\"] + 1", json!(8)),
        ("hashedInts", json!({"4": 16})),
        ("hashedSet", json!([42])),
        ("some", json!(5)),
        ("nope", Value::Null),
        ("someText", json!("yes")),
        ("choice", json!("picked")),
        ("triple", json!([1, "two", "3"])),
        ("couple", json!({"first": 4, "second": true})),
        ("owned->name", json!("rex")),
        ("owned.weight", json!(12.5)),
        ("unowned", Value::Null),
        ("shared", json!(77)),
        ("*shared", json!(77)),
        ("unshared", Value::Null),
        ("atom", json!(31)),
        ("dog.legs", json!(4)),
        ("mood", json!("wild")),
        (
            "bag",
            json!({"words": ["in", "bag"], "byNumber": {"2": "b"}}),
        ),
        ("boxed.held", json!(3)),
        ("reference", json!(3)),
        ("textReference", json!("small")),
        ("len(ring)", json!(295)),
        ("len(words[2])", json!(41)),
        ("numbers[1..3]", json!([2, 3])),
        ("small == \"small\"", json!(true)),
        ("numbers[2] == 3 && dog.name == \"rex\"", json!(true)),
    ];
    let (mut right, total) = (0, table.len());
    for (expr, want) in table {
        let expr = in_main(expr);
        match fixture
            .program
            .evaluate(&fixture.view, &introspect::Context::default(), &expr)
        {
            Ok(answer) if answer.value.to_json(1000) == want => right += 1,
            // Optimised away is an answer; a part of a value may be.
            Ok(answer)
                if optimised
                    && answer
                        .value
                        .to_json(1000)
                        .to_string()
                        .contains("unavailable") => {}
            Err(_) if optimised => {}
            other => panic!("{expr}: {other:?}, wanted {want}"),
        }
    }
    eprintln!("{level}: {right} of {total} values");
    assert!(right * 2 > total, "{right} of {total}");
    if optimised {
        assert_eq!(our_frames(&fixture.frames()), gdb_frames(&fixture.gdb[0]));
        return;
    }
    let globals = [
        ("zoo::population", 1234),
        ("population", 1234),
        ("secret", 55),
        ("zoo::Cage::built", 7),
        ("Cage::built", 7),
        ("frame(measure).size_", 6),
        ("frame(1).this->size_", 6),
    ];
    for (expr, want) in globals {
        assert_eq!(fixture.json(expr), json!(want), "{expr}");
    }
    let dog = fixture.json("frame(main).dog");
    assert_eq!(
        (&dog["legs"], &dog["name"], &dog["weight"]),
        (&json!(4), &json!("rex"), &json!(12.5))
    );
    assert_eq!(
        fixture.ask("frame(main).words").type_name.split('<').next(),
        Some("std::vector")
    );
    assert_eq!(our_frames(&fixture.frames()), gdb_frames(&fixture.gdb[0]));
}

/// Every bare name of the table is a local of `main`.
fn in_main(expr: &str) -> String {
    expr.split(" && ")
        .map(|part| match part.strip_prefix("len(") {
            Some(rest) => format!("len(frame(main).{rest}"),
            None => match part.strip_prefix('*') {
                Some(rest) => format!("*frame(main).{rest}"),
                None => format!("frame(main).{part}"),
            },
        })
        .collect::<Vec<_>>()
        .join(" && ")
}
