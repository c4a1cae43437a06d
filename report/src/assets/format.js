// Numbers for people, by the rules of `format.rs`: what the terminal shows reads the same here.

const Format = (() => {
  // From 1 to 1024, with two, one or no decimals. Rounds products, as the Rust side does: toFixed
  // would round some halves down.
  function threeDigits(value) {
    const hundredths = Math.round(value * 100);
    if (hundredths < 1000) return (hundredths / 100).toFixed(2);
    const tenths = Math.round(value * 10);
    if (tenths < 1000) return (tenths / 10).toFixed(1);
    return String(Math.round(value));
  }

  function bytes(n) {
    if (n < 1024) return `${n} B`;
    let value = n / 1024;
    for (const unit of ["KiB", "MiB", "GiB", "TiB", "PiB"]) {
      if (Math.round(value) < 1024) return `${threeDigits(value)} ${unit}`;
      value /= 1024;
    }
    return `${threeDigits(value)} EiB`;
  }

  function count(n) {
    return String(n).replace(/\B(?=(\d{3})+$)/g, ",");
  }

  function counted(n, noun, nouns = `${noun}s`) {
    return `${count(n)} ${n === 1 ? noun : nouns}`;
  }

  function duration(ns) {
    if (ns < 1000) return `${ns} ns`;
    for (const [unit, name] of [[1e3, "µs"], [1e6, "ms"]]) {
      if (Math.round(ns / unit) < 1000) return `${threeDigits(ns / unit)} ${name}`;
    }
    const seconds = ns / 1e9;
    if (Math.round(seconds * 10) < 600) return `${threeDigits(seconds)} s`;
    return longDuration(Math.round(seconds));
  }

  function longDuration(seconds) {
    const two = (n) => String(n).padStart(2, "0");
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
    const minutes = Math.floor((seconds + 30) / 60);
    if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
    const hours = Math.floor((minutes + 30) / 60);
    return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
  }

  function percent(part, whole) {
    if (!part || !whole) return "0%";
    const tenths = Math.round((part * 1000) / whole);
    if (tenths === 0) return "<0.1%";
    if (tenths >= 1000) return `${Math.floor(tenths / 10)}%`;
    return `${Math.floor(tenths / 10)}.${tenths % 10}%`;
  }

  function exactBytes(n) {
    return counted(n, "byte");
  }

  function fileName(path) {
    return path.slice(path.lastIndexOf("/") + 1);
  }

  return { bytes, count, counted, duration, percent, exactBytes, fileName };
})();
