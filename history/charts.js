// Draws the charts in the colors of the page, and again when those change.
"use strict";

const charts = JSON.parse(document.getElementById("charts").textContent);
const isTouch = matchMedia("(pointer: coarse)").matches;

function draw() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const axis = {
        gridcolor: color("line"), linecolor: color("line"), zerolinecolor: color("line"), automargin: true,
        fixedrange: isTouch, showspikes: false,
    };
    charts.forEach((chart, index) => {
        const traces = chart.traces.map((trace) => ({
            type: "scatter", mode: trace.x.length > 60 ? "lines" : "lines+markers",
            x: trace.x, y: trace.y, customdata: trace.epoch, name: trace.name,
            line: { color: color(trace.color), dash: trace.dash, width: trace.name === "step" ? 1 : 2 },
            marker: { size: 5 },
            hovertemplate: chart.hover === "closest"
                ? "%{fullData.name}<br>%{y:.4g} in epoch %{customdata}<extra></extra>"
                : "%{fullData.name} %{y:.4g}<extra></extra>",
        }));
        const layout = {
            height: 300, margin: { l: 8, r: 12, t: 8, b: 8 }, showlegend: false,
            hovermode: chart.hover, hoverdistance: 100,
            dragmode: isTouch ? false : "zoom", // a finger scrolls the page
            paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
            font: { color: color("text"), family: "system-ui, sans-serif", size: 13 },
            hoverlabel: { bgcolor: color("panel"), font: { color: color("text") }, namelength: 40 },
            xaxis: { ...axis, title: { text: "step" } }, yaxis: axis,
        };
        Plotly.react(`chart${index}`, traces, layout, { displayModeBar: false, responsive: true });
    });
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
