"""What all HTML pages have in common: the page itself, the blocks it is made of, plots as inline SVG, words.

`block` says what a page is made of, `render` turns it into one HTML file that loads nothing, `plot` draws, `words`
holds texts in English and Chinese by key, `text` makes any text safe to look at, `number` prints numbers.
"""
