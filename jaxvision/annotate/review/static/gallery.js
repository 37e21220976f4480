const label = document.getElementById("label"), low = document.getElementById("low"), high = document.getElementById("high");
const alone = document.getElementById("alone"), objects = [...document.querySelectorAll("g")], figures = [...document.querySelectorAll("figure")];
for (const name of [...new Set(objects.map((each) => each.dataset.label))].sort()) label.append(new Option(name, name));
function show() {
  let count = 0, images = 0;
  for (const each of objects) {
    const sure = Number(each.dataset.sure);
    const fits = (label.value === "" || each.dataset.label === label.value) && sure >= Number(low.value) && sure <= Number(high.value);
    each.classList.toggle("out", !fits);
    count += fits;
  }
  for (const each of figures) {
    each.hidden = alone.checked && !each.querySelector("g:not(.out)");
    images += !each.hidden;
  }
  document.getElementById("count").textContent = `${count} object${count === 1 ? "" : "s"} in ${images} image${images === 1 ? "" : "s"} of this page`;
}
document.forms[0].addEventListener("input", show);
show();
