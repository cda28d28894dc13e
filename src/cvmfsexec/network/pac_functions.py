"""The functions that a proxy configuration file may call, for engines without them.

``dnsResolve`` and ``myIpAddress`` come from the engine's host, the rest is here. What a
function does not understand it answers with false, as browsers do.
"""

JAVASCRIPT = r"""
function isPlainHostName(host) { return String(host).indexOf('.') < 0; }
function dnsDomainIs(host, domain) {
  host = String(host).toLowerCase(); domain = String(domain).toLowerCase();
  return host.length >= domain.length &&
    host.substring(host.length - domain.length) === domain;
}
function localHostOrDomainIs(host, hostdom) {
  return host === hostdom || String(hostdom).indexOf(host + '.') === 0;
}
function isResolvable(host) { return dnsResolve(host) != null; }
function dnsDomainLevels(host) { return String(host).split('.').length - 1; }
function convert_addr(text) {
  var match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(String(text));
  if (!match) return null;
  var number = 0;
  for (var i = 1; i <= 4; i++) {
    if (match[i] > 255) return null;
    number = number * 256 + Number(match[i]);
  }
  return number | 0;
}
function isInNet(host, pattern, mask) {
  var address = convert_addr(host);
  if (address === null) address = convert_addr(dnsResolve(host));
  var net = convert_addr(pattern), bits = convert_addr(mask);
  if (address === null || net === null || bits === null) return false;
  return (address & bits) === (net & bits);
}
function shExpMatch(text, pattern) {
  var expression = String(pattern).replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*+/g, '.*').replace(/\?/g, '.');
  return new RegExp('^' + expression + '$').test(String(text));
}
var _days = ['SUN', 'MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT'];
var _months = ['JAN', 'FEB', 'MAR', 'APR', 'MAY', 'JUN', 'JUL', 'AUG', 'SEP', 'OCT',
  'NOV', 'DEC'];
function _between(low, value, high) {
  return low <= high ? low <= value && value <= high : value >= low || value <= high;
}
function _split(given) {
  var words = Array.prototype.slice.call(given), last = words[words.length - 1];
  var gmt = last === 'GMT';
  if (gmt) words.pop();
  var now = new Date();
  return {words: words, get: function (what) {
    return now[(gmt ? 'getUTC' : 'get') + what]();
  }};
}
function weekdayRange() {
  var at = _split(arguments), low = _days.indexOf(at.words[0]);
  var high = at.words.length > 1 ? _days.indexOf(at.words[1]) : low;
  return low >= 0 && high >= 0 && _between(low, at.get('Day'), high);
}
function timeRange() {
  var at = _split(arguments), n = at.words.map(Number), h = at.get('Hours');
  var seconds = h * 3600 + at.get('Minutes') * 60 + at.get('Seconds');
  if (n.length === 1) return h === n[0];
  if (n.length === 2) return _between(n[0] * 3600, seconds, n[1] * 3600 - 1);
  if (n.length === 4) return _between(
    n[0] * 3600 + n[1] * 60, seconds, n[2] * 3600 + n[3] * 60);
  return n.length === 6 && _between(n[0] * 3600 + n[1] * 60 + n[2], seconds,
    n[3] * 3600 + n[4] * 60 + n[5]);
}
function dateRange() {
  var at = _split(arguments), length = at.words.length, half = length / 2;
  var kinds = at.words.map(function (word) {
    if (_months.indexOf(word) >= 0) return 'Month';
    return Number(word) > 31 ? 'FullYear' : 'Date';
  });
  function ordered(words, kinds) {
    var weights = {FullYear: 10000, Month: 100, Date: 1}, low = 0, now = 0;
    kinds.forEach(function (kind, i) {
      var month = _months.indexOf(words[i]);
      low += weights[kind] * (month >= 0 ? month : Number(words[i]));
      now += weights[kind] * at.get(kind);
    });
    return [low, now];
  }
  if (length === 1) half = 1;
  if (half !== Math.floor(half)) return false;
  var low = ordered(at.words.slice(0, half), kinds.slice(0, half));
  var high = length === 1 ? low :
    ordered(at.words.slice(half), kinds.slice(half));
  return _between(low[0], low[1], high[0]);
}
function alert() {}
"""
