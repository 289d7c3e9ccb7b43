// WCAG 2.2: relative luminance, and the ratio of each text to what lies behind it.
() => {
  const channels = (text) => text.match(/[0-9.]+/g).map(Number)
  const luminance = (text) => {
    const [r, g, b] = channels(text).map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor
      if (channels(colour)[3] !== 0) return colour
    }
    return 'rgb(255, 255, 255)'
  }
  const ratio = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b)
    return (light + 0.05) / (dark + 0.05)
  }
  return [...document.querySelectorAll('body *')]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .map((e) => ({
      text: e.textContent.trim().slice(0, 40),
      ratio: ratio(getComputedStyle(e).color, behind(e)),
    }))
}
