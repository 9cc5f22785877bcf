//! How the platform spells the names of commands that it sends to engines for its own work: the first letter
//! small, the others capital. Engines take a name in any case, and say it by `MONITOR` as it came; so the proxy
//! can keep these from clients that watch.

/// `INFO`.
pub const INFO: &str = "iNFO";
/// `PING`.
pub const PING: &str = "pING";

/// Whether a name is spelled like that. Clients spell theirs all small or all capital.
#[must_use]
pub fn is_own(name: &[u8]) -> bool {
    let Some((first, rest)) = name.split_first() else {
        return false;
    };
    first.is_ascii_lowercase()
        && rest.iter().any(u8::is_ascii_uppercase)
        && !rest.iter().any(u8::is_ascii_lowercase)
}

/// Spells a name like that.
pub fn spell(name: &mut [u8]) {
    if let Some((first, rest)) = name.split_first_mut() {
        first.make_ascii_lowercase();
        rest.make_ascii_uppercase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_usual_name_is_taken_for_one() {
        for name in ["PING", "ping", "Ping", "pInG", "", "p", "P", "NO-TOUCH"] {
            assert!(!is_own(name.as_bytes()), "{name}");
        }
        for name in ["INFO", "ping", "Eval_Ro"] {
            let mut spelled = name.as_bytes().to_vec();
            spell(&mut spelled);
            assert!(is_own(&spelled) && spelled.eq_ignore_ascii_case(name.as_bytes()));
        }
        assert!(is_own(INFO.as_bytes()) && is_own(PING.as_bytes()));
    }
}
