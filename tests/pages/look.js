// How large and where each text of a page is.
() => [...document.querySelectorAll('p, li, td, a')]
  .filter(element => element.innerText.trim() && element.children.length == 0)
  .map(element => {
      const letters = document.createRange();
      letters.selectNodeContents(element);
      const {left, right} = letters.getBoundingClientRect();
      return {text: element.innerText, size: parseFloat(getComputedStyle(element).fontSize),
              left, right};
  })
