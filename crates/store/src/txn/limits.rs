//! What is refused, and with which words.

use super::*;

fn refused(txn: &Txn) -> String {
    Command::try_from(txn).unwrap_err().to_string()
}

#[test]
fn limits_are_exact_and_named() {
    let value = "x".repeat(MAX_VALUE - 2);
    assert!(Command::try_from(&Txn::new().put("k", &value).unwrap()).is_ok());
    let error = refused(&Txn::new().put("k", &(value.clone() + "x")).unwrap());
    assert!(error.contains("the value of k (bytes) is 1048577") && error.contains("1048576"));

    let most = (0..MAX_OPS).fold(Txn::new(), |txn, n| txn.delete(format!("{n}")));
    assert!(Command::try_from(&most).is_ok());
    let error = refused(&most.delete("one more"));
    assert!(
        error.contains("operations") && error.contains("256"),
        "{error}"
    );

    let error = refused(&Txn::new().delete("k".repeat(MAX_KEY + 1)));
    assert!(error.contains("a key (bytes) is 513"), "{error}");

    let whole = (0..4).fold(Txn::new(), |txn, n| {
        txn.put(format!("{n}"), &value).unwrap()
    });
    assert!(refused(&whole).contains("the transaction (bytes)"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let twice = Txn::new().put("k", &1).unwrap().delete("k");
    assert!(refused(&twice).contains("k is written twice"));
    assert!(refused(&Txn::new().expect("", 0)).contains("a key is empty"));
    let mut deep = Value::Null;
    for _ in 0..200 {
        deep = Value::Array(vec![deep]);
    }
    let txn = Txn {
        put: vec![("k".to_owned(), deep)],
        ..Txn::default()
    };
    assert!(
        refused(&txn).contains("recursion limit"),
        "other nodes could not read it"
    );
}
