//! Sizes as operators write and read them.

/// Reads `512MB`, `1gb`, `2g`, `1073741824`: powers of 1,024, case ignored.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong =
        || format!("'{text}' is not a size: write a number with B, KB, MB, GB or TB, like 512MB");
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(factor)
            .ok_or_else(|| format!("'{text}' is too large"));
    }
    let value: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = value * factor as f64;
    if bytes.is_finite() && (0.0..9.0e18).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err(wrong())
    }
}

/// `14.91GB`, `2.08MB`, `0KB`: two decimals, the largest unit that gives at least 1, without
/// trailing zeros.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TB", 1 << 40),
        ("GB", 1 << 30),
        ("MB", 1 << 20),
        ("KB", 1 << 10),
    ];
    for (name, factor) in UNITS {
        if bytes >= factor {
            let text = format!("{:.2}", bytes as f64 / factor as f64);
            let text = text.trim_end_matches('0').trim_end_matches('.');
            return format!("{text}{name}");
        }
    }
    if bytes == 0 {
        "0KB".to_owned()
    } else {
        format!("{bytes}B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_written() {
        assert_eq!(parse_size("1gb"), Ok(1 << 30));
        assert_eq!(parse_size("1.5 GB"), Ok(3 << 29));
        assert_eq!(parse_size("512"), Ok(512));
        for wrong in ["", "GB", "1XB", "-1GB", "1..2GB", "99999999999999999999GB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_as_read() {
        assert_eq!(format_size(0), "0KB");
        assert_eq!(format_size(1 << 30), "1GB");
        assert_eq!(format_size(16_009_490_104), "14.91GB");
        assert_eq!(format_size(2_181_038), "2.08MB");
    }
}
