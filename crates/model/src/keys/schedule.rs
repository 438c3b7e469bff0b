//! The forms of `snapshots.schedule` and `snapshots.expiry`.

const ALIASES: [&str; 8] =
    ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@annually", "@yearly", "@startup"];

/// `1H 30M`: each unit at most once.
pub(super) fn is_duration(text: &str) -> bool {
    let mut seen = Vec::new();
    let part = |part: &str| {
        let Some(unit) = part.chars().last().filter(|unit| "MHdwmyS".contains(*unit)) else { return false };
        let number = &part[..part.len() - 1];
        let fresh = !seen.contains(&unit);
        seen.push(unit);
        fresh && number.len() <= 9 && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    !text.trim().is_empty() && text.split_whitespace().all(part)
}

/// Five cron fields, or aliases separated by commas, or `@never`.
pub(super) fn is_schedule(text: &str) -> bool {
    let text = text.trim();
    if text == "@never" {
        return true;
    }
    if text.starts_with('@') {
        return text.split(',').all(|alias| ALIASES.contains(&alias.trim()));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
    fields.len() == 5 && fields.iter().zip(ranges).all(|(field, range)| is_cron_field(field, range))
}

fn is_cron_field(field: &str, (low, high): (u32, u32)) -> bool {
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| !text.starts_with('+') && (low..=high).contains(n));
    field.split(',').all(|part| {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step_good = step.is_none_or(|step| step.parse::<u32>().is_ok_and(|step| step > 0));
        let range_good = match range.split_once('-') {
            _ if range == "*" => true,
            Some((first, last)) => match number(first).zip(number(last)) {
                Some((first, last)) => first <= last,
                None => is_name(first) && is_name(last),
            },
            None => number(range).is_some() || is_name(range),
        };
        step_good && range_good
    })
}

/// `mon`, `jan`: names are admitted in any field, as cron itself does not tell them apart by place.
fn is_name(text: &str) -> bool {
    const NAMES: &str = "sun mon tue wed thu fri sat jan feb mar apr may jun jul aug sep oct nov dec";
    text.len() == 3 && NAMES.split(' ').any(|name| name.eq_ignore_ascii_case(text))
}
