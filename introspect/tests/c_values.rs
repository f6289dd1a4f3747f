//! C: every kind of value, expression and frame, at -O0, PIE and not, DWARF 4 and 5.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed test may panic"
)]

mod support;

use introspect::{Limits, View};
use serde_json::json;
use support::{Fixture, gdb_frames, our_frames};

fn check_values(fixture: &Fixture) {
    let table = [
        ("counter", json!(42)),
        ("hidden", json!(-7)),
        ("plain.c::hidden", json!(-7)),
        ("octets", json!([1, 2, 250, 0])),
        ("tiny", json!(-5)),
        ("big", json!(18446744073709551615u64)),
        ("letter", json!("x")),
        ("greeting", json!("hello, \"world\"\n")),
        ("nothing", json!({"ptr": "0x0"})),
        ("fixed", json!("abc")),
        ("yes", json!(true)),
        ("paint", json!("GREEN")),
        ("mask", json!(9)),
        ("num.real", json!(1.5)),
        ("num.bytes", json!([0, 0, 192, 63])),
        ("pk.a", json!(5)),
        ("pk.b", json!(-3)),
        ("pk.c", json!(123456789012u64)),
        ("pk.inner", json!(9)),
        ("pk.u2", json!("DCBA")),
        ("pk.color", json!("BLUE")),
        ("pk.name", json!("pack")),
        ("pk.ld", json!(-3.5)),
        ("pk.f", json!(0.1)),
        ("pk.grid[1][2].y", json!(12)),
        (
            "pk.grid[0]",
            json!([{"x": 1, "y": 2}, {"x": 3, "y": 4}, {"x": 5, "y": 6}]),
        ),
        ("head->next->next->value", json!(3)),
        ("head.next.label", json!("two")),
        (
            "*head->next->next",
            json!({"value": 3, "next": {"ptr": "0x0"}, "label": "three"}),
        ),
        ("handle", json!({"ptr": "0x1234"})),
        ("*handle", json!({"unavailable": "incomplete type"})),
        ("flexible->items[2]", json!(22)),
        ("flexible->items[0..3]", json!([0, 11, 22])),
        ("matrix", json!([[1, 2, 3], [4, 5, 6]])),
        ("matrix[1][0..2]", json!([4, 5])),
        ("*(int*)anything", json!(42)),
        ("fixed_const", json!(77)),
        ("per_thread", json!(101)),
        ("per_thread2", json!(22)),
        ("len(many)", json!(1500)),
        ("sizeof(pk.grid)", json!(48)),
        ("many[1499]", json!(1499)),
        ("&first == head", json!(true)),
        ("*(&counter)", json!(42)),
        ("head + 1 > head", json!(true)),
        ("&many[10] - &many[4]", json!(6)),
        ("*(many + 7)", json!(7)),
        ("counter * 2 + 1 == 85 && letter == 'x'", json!(true)),
        ("nothing == 0 || *nothing == 'a'", json!(true)),
        ("paint == GREEN", json!(true)),
        ("fixed == \"abc\"", json!(true)),
        ("head->label == \"one\"", json!(true)),
        ("-1 < 1u", json!(false)),
        ("7 / 2 + 7 % 2", json!(4)),
        ("1.5 * 2", json!(3.0)),
        ("~0", json!(-1)),
        ("(unsigned char)300", json!(44)),
        ("(enum color)5", json!("GREEN")),
        ("((struct node*)&first)->value", json!(1)),
        ("*(int*)0x10", json!({"unavailable": "not mapped"})),
        ("nothing[0]", json!({"unavailable": "not mapped"})),
        ("local", json!(99)),
        ("frame(inner).ratio", json!(0.5)),
        ("frame(outer).array", json!([3, 9, 0, -1])),
        ("frame(outer).here.y", json!(4)),
        ("frame(2).n", json!(3)),
        ("frame(main).argc", json!(1)),
        ("frame(1).tag", json!("tagged")),
        ("frame(1).where->x", json!(102)),
        ("frame(1).calls", json!(1)),
        ("counter as u8 as char", json!("*")),
    ];
    for (expr, want) in table {
        // `local` is inner's: the default frame is stop_here, which has none.
        let expr = if expr == "local" {
            "frame(1).local"
        } else {
            expr
        };
        assert_eq!(fixture.json(expr), want, "{expr}");
    }
    assert_eq!(fixture.text("mask"), "(F_A | F_C)");
    assert_eq!(fixture.text("letter"), "120 'x'");
    assert_eq!(fixture.text("$rip as long == (long)$pc"), "true");
    assert!(
        fixture.text("pk.callback").contains("<helper>"),
        "{}",
        fixture.text("pk.callback")
    );
    let long = fixture.json("long_text");
    assert_eq!(
        (
            long["len"].as_u64(),
            long["text_truncated"].as_str().unwrap().len()
        ),
        (Some(69999), 65536)
    );
    let many = fixture.json("many");
    assert_eq!(
        (
            many["len"].as_u64(),
            many["items_truncated"].as_array().unwrap().len()
        ),
        (Some(1500), 1000)
    );
}

fn check_types(fixture: &Fixture) {
    let table = [
        ("head", "struct node *"),
        ("matrix", "int [2][3]"),
        ("greeting", "const char *"),
        ("pk.callback", "int (*)(int)"),
        ("fixed_const", "const volatile int"),
        ("octets", "unsigned char [4]"),
        ("shaky", "volatile int [3]"),
        ("paint", "enum color"),
        ("&matrix", "int (*)[2][3]"),
        ("frame(main).argv", "char **"),
        ("anything", "void *"),
    ];
    for (expr, want) in table {
        assert_eq!(fixture.ask(expr).type_name, want, "{expr}");
    }
}

fn check_frames(fixture: &Fixture) {
    let frames = fixture.frames();
    assert_eq!(our_frames(&frames), gdb_frames(&fixture.gdb[0]));
    let names: Vec<_> = frames
        .iter()
        .filter_map(|frame| frame.function.as_deref())
        .collect();
    assert_eq!(names, ["stop_here", "inner", "outer", "main"]);
    let locals = fixture
        .program
        .locals(&fixture.view, &frames[1], Limits::default());
    let names: Vec<_> = locals
        .iter()
        .map(|local| (local.name.as_str(), local.arg))
        .collect();
    assert_eq!(
        names,
        [
            ("depth", true),
            ("tag", true),
            ("where", true),
            ("local", false),
            ("ratio", false),
            ("calls", false),
            ("local", false)
        ]
    );
    assert_eq!(locals[3].value.to_json(9), json!(99));
    assert_eq!(locals[6].value.to_json(9), json!(40));
}

fn check_errors(fixture: &Fixture) {
    let error = fixture.fails("countr");
    assert_eq!(
        (error.column, error.near.first().map(String::as_str)),
        (1, Some("counter"))
    );
    let error = fixture.fails("head->valu");
    assert_eq!(error.near, ["value"]);
    assert_eq!(fixture.fails("counter +").column, 10);
    assert!(
        fixture
            .fails("frame(innr).x")
            .near
            .contains(&"inner".to_owned())
    );
    assert!(fixture.fails("matrix[2]").message.contains("length is 2"));
    assert!(fixture.fails("counter / 0").message.contains("zero"));
    assert!(fixture.fails("counter.x").message.contains("no member"));
    assert!(fixture.fails("*anything").message.contains("void"));
    assert!(fixture.fails("frame(9).x").message.contains("no frame 9"));
}

fn check_elements(fixture: &Fixture) {
    for (expr, value) in [
        ("any(matrix[0], _ == 2)", json!(true)),
        ("all(matrix, row, any(row, x, x > 3))", json!(false)),
        ("count(many, _ % 2 == 0)", json!(750)),
        ("count(many)", json!(1500)),
        ("sum(matrix[1])", json!(15)),
        ("sum(pk.grid[0], p, p.x * p.y)", json!(44)),
        ("any(flexible->items[0..3], i, i == 22)", json!(true)),
        ("!all(octets) && !any(shaky)", json!(true)),
        ("len(many[2..5])", json!(3)),
        ("(*(struct node *)&second).value", json!(2)),
    ] {
        assert_eq!(fixture.json(expr), value, "{expr}");
    }
    assert!(fixture.fails("any(head, _)").message.contains("bounds"));
    assert!(fixture.fails("any(many, k, v, k)").message.contains("map"));
    assert_eq!(fixture.fails("any(many, _ > )").column, 15);
    assert_eq!(fixture.fails("(struct nod *)0").near, ["node"]);
}

fn check_lines(fixture: &Fixture) {
    let program = &fixture.program;
    let sources = program.sources_named("plain.c");
    assert_eq!(sources, [support::source("plain.c").to_str().unwrap()]);
    let frame = &fixture.frames()[1];
    let line = frame.line.unwrap();
    assert!(program.lines_of("plain.c").contains(&line));
    let at = program.addresses_of_line("plain.c", line);
    assert_eq!(at.len(), 1);
    let (start, end) = program.line_extent(frame.pc - 1).unwrap();
    assert!(start == at[0] && (start..end).contains(&(frame.pc - 1)));
    assert_eq!(program.line_at(at[0]).unwrap().1, line);
    let function = program.function_at(frame.pc).unwrap();
    assert_eq!(function.name, "inner");
    assert_eq!(program.functions_named("inner"), [function]);
    assert!(program.addresses_of_line("lain.c", line).is_empty());
}

#[test]
fn pie_dwarf5() {
    let fixture = Fixture::c(
        "plain.c",
        &["-g", "-O0", "-pie", "-fPIE", "-gdwarf-5"],
        &["bt"],
    );
    check_values(&fixture);
    check_types(&fixture);
    check_frames(&fixture);
    check_errors(&fixture);
    check_elements(&fixture);
    check_lines(&fixture);
    assert_eq!(fixture.view.threads().len(), 1);
}

#[test]
fn fixed_address_dwarf4() {
    let fixture = Fixture::c(
        "plain.c",
        &["-g", "-O0", "-no-pie", "-gdwarf-4", "-fomit-frame-pointer"],
        &["bt"],
    );
    check_values(&fixture);
    check_types(&fixture);
    check_frames(&fixture);
}

#[test]
fn globals_are_listed_by_paths_that_evaluate_to_them() {
    let fixture = Fixture::c("plain.c", &["-g", "-O0"], &[]);
    let globals = fixture.program.globals();
    let paths: Vec<&str> = globals.iter().map(|global| global.path.as_str()).collect();
    for wanted in ["counter", "hidden", "pk", "head"] {
        assert!(paths.contains(&wanted), "{wanted} is not among {paths:?}");
    }
    for global in &globals {
        let listed = fixture
            .program
            .global(&fixture.view, global, Limits::default());
        let asked = fixture.ask(&global.path);
        assert_eq!(
            (listed.text, listed.type_name, listed.address),
            (asked.text, asked.type_name, asked.address),
            "{}",
            global.path
        );
        assert!(!global.is_toolchain());
    }
}
